"""The graph of a recipe as inline SVG: one box per node with its name, status and time, linked to its section."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from pipeline.report import numbers
from pipeline.report.collect import Stage
from pipeline.report.dag import Box, Layout, layout
from pipeline.report.escape import Html, element, visible

HEIGHT, CELL_HEIGHT, MARGIN = 54.0, 17.0, 6.0
NARROWEST, WIDEST, LETTER, SMALL = 132.0, 250.0, 7.4, 6.0
"""Width of a box in CSS pixels; LETTER is about that of one letter of its name, SMALL of its status."""
ROOM, SMALL_ROOM = 960.0, 440.0
"""Width that a picture may have on a wide page and on a narrow one, which shrink it a little, before it is turned."""

CHIP_WIDTH, CHIP_HEIGHT, CHIP_GAP, FEW = 150.0, 30.0, 6.0, 3
"""Cells of a matrix are drawn as chips inside the one box of their stage, once there are FEW of them."""

STATUSES = {"cached", "adopted", "ran", "failed", "missing"}
Groups = dict[str, list[Stage]]


def graph(stages: Sequence[Stage]) -> Html:
    """Return the graph drawn for wide pages and, where that helps, once more for narrow ones."""
    groups = _groups(stages)
    if not _in_order(needs := _needs(groups)):  # cells with different needs: a box of them all would stand in a circle
        groups = {stage.node.name: [stage] for stage in stages}
        needs = _needs(groups)
    across = layout(needs, {name: _size(name, group, 3) for name, group in groups.items()})
    down = layout(needs, {name: _size(name, group, 2) for name, group in groups.items()}, downwards=True)
    wide = down if across.width > ROOM and down.width <= ROOM else across
    narrow = down if down.width <= SMALL_ROOM else wide
    if wide is narrow:
        return _draw(groups, wide, "graph shrinks" if wide.width <= ROOM else "graph")
    return Html(_draw(groups, wide, "graph wide-only") + _draw(groups, narrow, "graph narrow-only"))


def _groups(stages: Sequence[Stage]) -> Groups:
    """Return box -> the stages in it: one, or all cells of a matrix that has many."""
    cells = Counter(stage.node.name.partition("@")[0] for stage in stages if "@" in stage.node.name)
    groups: Groups = {}
    for stage in stages:
        base, _, cell = stage.node.name.partition("@")
        groups.setdefault(f"{base}@" if cell and cells[base] >= FEW else stage.node.name, []).append(stage)
    return groups


def _needs(groups: Groups) -> dict[str, list[str]]:
    group_of = {stage.node.name: name for name, group in groups.items() for stage in group}
    needs: dict[str, list[str]] = {}
    for name, group in groups.items():
        needs[name] = [group_of[one] for stage in group for one in stage.node.needs if one in group_of]
    return needs


def _in_order(needs: dict[str, list[str]]) -> bool:
    place = {name: index for index, name in enumerate(needs)}
    return all(place[one] < place[name] for name, ones in needs.items() for one in ones)


def _size(name: str, group: Sequence[Stage], columns: int) -> tuple[float, float]:
    if len(group) == 1:
        texts = [LETTER * _columns(part) + 34 for part in name.split("@", 1)] + [SMALL * _columns(_state(group[0])) + 42]
        return min(WIDEST, max(NARROWEST, *texts)), HEIGHT + CELL_HEIGHT * ("@" in name)
    rows = -(-len(group) // columns)
    return columns * (CHIP_WIDTH + CHIP_GAP) + 14, rows * (CHIP_HEIGHT + CHIP_GAP) + 40


def _draw(groups: Groups, plan: Layout, class_: str) -> Html:
    edges = [_edge(points, plan.downwards) for points in plan.edges]
    boxes = [
        _matrix(name, group, plan.boxes[name]) if len(group) > 1 else _box(group[0], plan.boxes[name])
        for name, group in groups.items()
    ]
    width, height = plan.width + 2 * MARGIN, plan.height + 2 * MARGIN
    svg = element(
        "svg",
        *edges,
        *boxes,
        viewBox=f"{-MARGIN:g} {-MARGIN:g} {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role="group",
        aria_label="Graph of the stages",
    )
    return element("div", svg, class_=class_, tabindex="0", role="region", aria_label="Graph of the stages")


def _box(stage: Stage, box: Box) -> Html:
    node, left = stage.node, _n(box.x + 15)
    room = int((box.width - 26) / LETTER)
    base, _, cell = node.name.partition("@")
    top = box.y + CELL_HEIGHT * bool(cell)
    parts = [
        element("title", f"{node.name}: {_state(stage)}"),
        _rect("box", box),
        element("text", _shortened(base, room), class_="name", x=left, y=_n(box.y + 23)),
        element("text", _shortened(cell, room + 2), class_="cell", x=left, y=_n(box.y + 40)) if cell else "",
        element("circle", class_="dot", cx=_n(box.x + 19), cy=_n(top + 37.5), r="4"),
        element(
            "text",
            _shortened(_state(stage), int((box.width - 42) / SMALL + 0.5)),
            class_="state",
            x=_n(box.x + 29),
            y=_n(top + 41.5),
        ),
    ]
    return element("a", *parts, href=f"#{stage.anchor}", class_=f"node {status_class(node.status)}")


def _matrix(name: str, group: Sequence[Stage], box: Box) -> Html:
    """The box of a matrix: one chip per cell, a row at a time."""
    columns = int(box.width // (CHIP_WIDTH + CHIP_GAP))
    heading = f"{_shortened(name.rstrip('@'), 24)} · {len(group)} cells"
    parts = [_rect("box", box), element("text", heading, class_="name", x=_n(box.x + 13), y=_n(box.y + 22))]
    for index, stage in enumerate(group):
        x = box.x + 10 + (index % columns) * (CHIP_WIDTH + CHIP_GAP)
        y = box.y + 34 + (index // columns) * (CHIP_HEIGHT + CHIP_GAP)
        label = stage.cell if "," not in stage.cell else ", ".join(part.partition("=")[2] for part in stage.cell.split(", "))
        chip = [
            element("title", f"{stage.node.name}: {_state(stage)}"),
            _rect("chip", Box(x, y, CHIP_WIDTH, CHIP_HEIGHT)),
            element("circle", class_="dot", cx=_n(x + 12), cy=_n(y + 15), r="4"),
            element("text", _shortened(label, 18), class_="cell", x=_n(x + 22), y=_n(y + 19)),
        ]
        parts.append(element("a", *chip, href=f"#{stage.anchor}", class_=f"node {status_class(stage.node.status)}"))
    return element("g", *parts)


def status_class(status: str) -> str:
    """Return the class that gives `status` its colour."""
    return {"done": "ran"}.get(status, status if status in STATUSES else "other")


def _state(stage: Stage) -> str:
    took = stage.cost.wall_seconds
    return stage.node.status + (f" · {numbers.seconds(took)}" if took is not None else "")


def _rect(class_: str, box: Box) -> Html:
    return element("rect", class_=class_, x=_n(box.x), y=_n(box.y), width=_n(box.width), height=_n(box.height), rx="7")


def _edge(points: Sequence[tuple[float, float]], downwards: bool) -> Html:
    """A line that is straight inside layers and curved between them, with a small head at its end."""
    head = 7.0
    x, y = points[-1]
    stop = (x, y - head) if downwards else (x - head, y)
    line = [*points[:-1], stop] if points[-1] != points[-2] else [*points[:-2], stop, stop]
    path = f"M{_point(line[0])}L{_point(line[1])}"
    for start, end, on in zip(line[1:-1:2], line[2::2], line[3::2], strict=True):
        middle = (start[1] + end[1]) / 2 if downwards else (start[0] + end[0]) / 2
        first, second = ((start[0], middle), (end[0], middle)) if downwards else ((middle, start[1]), (middle, end[1]))
        path += f"C{_point(first)} {_point(second)} {_point(end)}L{_point(on)}"
    corners = [(x, y), (x - 4, y - head), (x + 4, y - head)] if downwards else [(x, y), (x - head, y - 4), (x - head, y + 4)]
    shape = "M" + "L".join(_point(corner) for corner in corners) + "Z"
    return Html(element("path", class_="edge", d=path) + element("path", class_="head", d=shape))


def _point(point: tuple[float, float]) -> str:
    return f"{_n(point[0])},{_n(point[1])}"


def _n(value: float) -> str:
    return f"{round(value, 1):g}"


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in visible(text))


def _shortened(text: str, room: int) -> str:
    """Cut in the middle: the cells of a matrix differ at the end."""
    if _columns(text) <= room:
        return text
    keep = max(2, room // (2 if _columns(text) > len(text) else 1) - 1)
    return f"{text[: keep // 2]}…{text[-(keep - keep // 2) :]}"
