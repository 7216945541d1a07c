"""The section of one stage as HTML."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence

from pipeline.report import numbers
from pipeline.report.collect import Block, Cell, Figure, Metric, Note, Samples, Stage, Table, Text
from pipeline.report.details import Detail, details
from pipeline.report.escape import Html, element
from pipeline.report.picture import status_class

SHORT = 24
"""A column of samples whose texts have at most this many characters is drawn narrow."""

UNFOLDED = 3
"""Samples that are open to read; the others are a click away."""

_COSTS = ("s", "ms", "GiB", "MiB")
"""Units of time and memory, which say what a result cost and not how good it is."""

_FIRST = 3
"""Figures that stand for a stage which neither marked nor tested any."""

DIRECTIONS = {True: "higher ↑", False: "lower ↓", None: "–"}


def section(stage: Stage, number: int, figures: Iterator[int]) -> Html:
    """Return the section of `stage`; `figures` counts the figures of the page."""
    heading = element("h2", element("span", f"{number}", class_="number"), stage.heading, id=stage.anchor)
    return body(stage, heading, figures)


def body(stage: Stage, heading: Html, figures: Iterator[int], *, introduced: bool = False) -> Html:
    """Return the section of `stage` under `heading`, without idea and formula where these were `introduced` before."""
    return element(
        "section",
        heading,
        element("p", element("code", stage.node.name), badge(stage.node.status), class_="stage-line"),
        *_state(stage),
        *(() if introduced else introduction(stage)),
        _metrics(stage),
        *(block(one, figures) for one in stage.blocks),
        cost_line(stage),
        _folded(stage),
        aria_labelledby=stage.anchor,
    )


def introduction(stage: Stage) -> list[Html]:
    """Return the idea and the formula of a stage."""
    formula = element("p", stage.formula, class_="formula", dir="auto", tabindex="0") if stage.formula else Html()
    return [paragraph(stage.idea, "idea") if stage.idea else Html(), formula]


def badge(status: str) -> Html:
    """Return the status as a coloured word."""
    return element("span", status, class_=f"badge {status_class(status)}")


def paragraph(text: str, class_: str | None = None) -> Html:
    """Return `text` as paragraphs: a blank line ends one, single line breaks stay."""
    parts = [part for part in re.split(r"\n\s*\n", text.strip("\n")) if part.strip()]
    return Html("".join(element("p", part, class_=class_, dir="auto") for part in parts))


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool], label: str, class_: str = "") -> Html:
    """Return a table in a box of its own that scrolls sideways where the page is too narrow."""
    classes = ["right" if right else None for right in numeric]
    head = [element("th", column, scope="col", class_=class_) for column, class_ in zip(columns, classes, strict=True)]
    cells = [[element("td", text, class_=class_) for text, class_ in zip(row, classes, strict=True)] for row in rows]
    body = [element("tr", *row) for row in cells]
    table = element("table", element("thead", element("tr", *head)), element("tbody", *body), class_=class_ or None)
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=label or "Table")


def block(one: Block | Note, figures: Iterator[int]) -> Html:
    """Return one block; exact facts stand in the folded part instead."""
    if isinstance(one, Text):
        return paragraph(one.text)
    if isinstance(one, Table):
        numeric = [_is_numeric([row[column] for row in one.rows]) for column in range(len(one.columns))]
        rows = [[numbers.cell(value) for value in row] for row in one.rows]
        return _titled(one, grid(one.columns, rows, numeric, one.title))
    if isinstance(one, Samples):
        return _titled(one, _samples(one))
    if isinstance(one, Figure):
        return _figure(one, next(figures))
    return note(one.text) if isinstance(one, Note) else Html()


def note(text: str, class_: str = "note") -> Html:
    """Return a remark of the report itself."""
    return element("p", text, class_=class_, dir="auto")


def cost_line(stage: Stage) -> Html:
    """Return what the stage used, in one line."""
    cost, parts = stage.cost, []
    if cost.wall_seconds is not None:
        parts.append(f"{numbers.seconds(cost.wall_seconds)} wall time")
    if cost.cpu_seconds is not None:
        parts.append(f"{numbers.seconds(cost.cpu_seconds)} of CPU")
    if cost.peak_memory_gib is not None:
        parts.append(f"{numbers.memory(cost.peak_memory_gib)} peak memory")
    return element("p", element("b", "Cost "), " · ".join(parts), class_="cost") if parts else Html()


def _state(stage: Stage) -> list[Html]:
    """Return what must be said before the results: failed, missing, adopted, why it ran."""
    node, parts = stage.node, []
    causes = " ".join(node.causes)
    if node.status == "failed":
        parts.append(note("This stage failed. " + causes, "note failed"))
    elif node.artifact is None:
        parts.append(note("There is no artifact of this stage yet. " + causes, "note missing"))
    elif causes:
        parts.append(note(f"Why it ran: {causes}", "why"))
    parts += [note(text, "note adopted") for text in node.notes]
    for one in node.artifact.record.adopted if node.artifact else []:
        text = (
            f"Adopted on {one.time}: the code changed after this was computed ({one.code_before[:12]} became "
            f"{one.code_after[:12]}), and a person said with --keep that the result stays. It was not computed again."
        )
        parts.append(note(text, "note adopted"))
    return parts


def _metrics(stage: Stage) -> Html:
    metrics = [metric for metric in stage.metrics if metric.listed]
    if not metrics:
        return Html()
    shown = {
        "value": [metric_value(metric) for metric in metrics],
        "unit": [metric.unit_shown or "–" for metric in metrics],
        "split": [metric.split or "–" for metric in metrics],
        "n": [metric_count(metric) for metric in metrics],
        "better": [DIRECTIONS[metric.higher_is_better] for metric in metrics],
    }
    if any(metric.interval for metric in metrics):
        intervals = [metric_interval(metric) for metric in metrics]
        shown = {"value": shown.pop("value"), "interval": intervals, **shown}
    columns = ["metric", *shown]
    rows = list(zip([metric.label for metric in metrics], *shown.values(), strict=True))
    return grid(columns, rows, [column in {"value", "n"} for column in columns], f"Metrics of {stage.node.name}", "metrics")


def figures_of(stage: Stage) -> list[Metric]:
    """Return what the stage marked as its main figures, else what it tested, else the first that can be better or worse."""
    judged = [metric for metric in stage.metrics if metric.listed and metric.higher_is_better is not None]
    tested = [metric for metric in judged if metric.split == "test"]
    others = [metric for metric in judged if metric.unit not in _COSTS] or judged
    return [metric for metric in stage.metrics if metric.headline] or tested or others[:_FIRST]


def metric_value(metric: Metric) -> str:
    """Return the value for people."""
    return _in_unit(metric, metric.value)


def metric_interval(metric: Metric) -> str:
    """Return `1.58 to 1.62`, or a dash."""
    return " to ".join(_in_unit(metric, end) for end in metric.interval) if metric.interval else "–"


def metric_count(metric: Metric) -> str:
    """Return on how many items the value stands, with the items' name where the stage gave one."""
    items = (metric.model_extra or {}).get("items")
    return "–" if metric.n is None else numbers.count(metric.n, items if isinstance(items, str) else "")


def _in_unit(metric: Metric, value: float) -> str:
    divisor, _ = numbers.unit_for(metric.value, metric.unit)
    return numbers.number(value / divisor if divisor > 1 else value)


def _titled(one: Table | Samples, content: Html) -> Html:
    title = element("h3", one.title, dir="auto") if one.title else Html()
    return Html(title + (element("p", one.caption, class_="caption", dir="auto") if one.caption else "") + content)


def _samples(one: Samples) -> Html:
    """A table on wide pages; on narrow ones (style.css) each cell becomes a block under its column's name."""
    longest = [max((len(row[index]) for row in one.rows), default=0) for index in range(len(one.columns))]
    narrow = [length <= SHORT and max(longest) > SHORT for length in longest]
    classes = ["short" if short else None for short in narrow]
    head = [element("th", column, scope="col", class_=class_) for column, class_ in zip(one.columns, classes, strict=True)]
    rows = [element("tr", *(_sample(text, column) for text, column in zip(row, one.columns, strict=True))) for row in one.rows]

    def table(some: Sequence[Html]) -> Html:
        return element("table", element("thead", element("tr", *head)), element("tbody", *some), class_="samples")

    if len(rows) <= UNFOLDED:
        return table(rows)
    more = element("details", element("summary", f"{len(rows) - UNFOLDED} more"), table(rows[UNFOLDED:]))
    return Html(table(rows[:UNFOLDED]) + more)


def _sample(text: str, column: str) -> Html:
    return element("td", element("div", text or "(empty)", class_="sample", dir="auto", tabindex="0"), data_label=column)


def _figure(one: Figure, number: int) -> Html:
    label = f"Figure {number}."
    caption = element("figcaption", element("b", label), " ", one.caption)
    if one.problem:
        return element("figure", note(f"The figure {one.path!r} {one.problem}.", "note missing"), caption)
    source = f"data:{one.media_type};base64,{base64.b64encode(one.content).decode()}"
    return element("figure", element("img", src=source, alt=one.caption or label), caption)


def _folded(stage: Stage) -> Html:
    tables = [_detail(detail) for detail in details(stage)]
    return element("details", element("summary", "Engineer's details"), *tables) if tables else Html()


def _detail(detail: Detail) -> Html:
    content = grid(detail.columns, detail.rows, [False] * len(detail.columns), detail.title, "exact")
    return Html(element("h3", detail.title) + content)


def _is_numeric(values: Sequence[Cell]) -> bool:
    shown = [value for value in values if value is not None]
    return bool(shown) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in shown)
