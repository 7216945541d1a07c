"""Charts that `plots` does not offer: points with intervals both ways, curves with a band, bars with intervals in words.

In the style of `stages.common.plots`; text is saved as paths and the same numbers give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from stages.common.plots import INK, MUTED, PALETTE, STYLE, WIDTH, label_ends, readable
from stages.common.verdicts import Estimate
from stages.common.wording import plus_minus

HEIGHT = 4.0
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
"""A shape for each round through the colours, so that no two models look alike."""
RIGHT, LEFT, MIDDLE = (9, "left"), (-9, "right"), (0, "center")
"""Where a name may stand beside its point: how far to the side, in points of 1/72 inch, and which end is there."""
HEIGHTS = (0, 9, -9, 18, -18, 27, -27, 36, -36)
"""How far up or down it may move."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model in a scatter chart: its number in the table, which gives colour and shape; intervals (low, high) or None."""

    number: int
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Band:
    """One curve: the model's number in the table, means, and the ends of their intervals at each x."""

    number: int
    xs: Sequence[float]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def scatter_chart(
    path: Path,
    points: Mapping[str, Point],
    *,
    xlabel: str,
    ylabel: str,
    log_x: bool = False,
    log_y: bool = False,
    hlines: Mapping[str, float] | None = None,
) -> str:
    """Draw a named point for each model with its intervals and write the chart to `path`.

    Args:
        path: an SVG file in the artifact's `figures` directory.
        points: by label; on a logarithmic axis they must be positive.
        xlabel, ylabel: with units.
        log_x, log_y: logarithmic axes.
        hlines: name -> y of yardsticks.

    Returns:
        The path relative to the artifact.
    """
    with chart_axes(path, xlabel, ylabel, log_x=log_x, log_y=log_y) as axes:
        for point in points.values():
            x_error, y_error = (_error(v, i) for v, i in ((point.x, point.x_interval), (point.y, point.y_interval)))
            axes.errorbar(
                point.x,
                point.y,
                xerr=x_error,
                yerr=y_error,
                fmt=_marker(point.number),
                color=color_of(point.number),
                elinewidth=1,
                markersize=6,
            )
        axes.margins(0.14)
        _draw_yardsticks(axes, hlines or {})
        places = {label: (point.x, point.y, point.number) for label, point in points.items()}
        write_names(axes, places, _whiskers(axes, list(points.values())), (RIGHT, LEFT, MIDDLE))
        label_ends(axes, [(name, level, MUTED) for name, level in (hlines or {}).items()])
    return f"{path.parent.name}/{path.name}"


def band_chart(
    path: Path, curves: Mapping[str, Band], *, xlabel: str, ylabel: str, hlines: Mapping[str, float] | None = None
) -> str:
    """Draw curves over a logarithmic x, each in the band of its intervals and named at its end; see `scatter_chart`."""
    with chart_axes(path, xlabel, ylabel, log_x=True, log_y=True) as axes:
        for band in curves.values():
            color = color_of(band.number)
            axes.plot(band.xs, band.means, color=color, marker=_marker(band.number), markersize=4.5)
            axes.fill_between(band.xs, band.lows, band.highs, color=color, alpha=0.15, linewidth=0)
        _draw_yardsticks(axes, hlines or {})
        axes.margins(x=0.03, y=0.06)
        ends = [(label, band.means[-1], color_of(band.number)) for label, band in curves.items()]
        label_ends(axes, ends + [(name, level, MUTED) for name, level in (hlines or {}).items()])
    return f"{path.parent.name}/{path.name}"


def interval_chart(path: Path, estimates: Mapping[str, Estimate], *, xlabel: str) -> str:
    """Draw one horizontal bar for each estimate, from top to bottom, with its interval as a whisker and in words beside it.

    The words have two digits of the interval: more digits of the mean than that would say what nobody measured.
    """
    with chart_axes(path, xlabel, "", log_x=False, log_y=False, height=0.9 + 0.36 * len(estimates)) as axes:
        for row, found in enumerate(estimates.values()):
            axes.barh(row, found.mean, height=0.62, color=PALETTE[0])
            low, high = (found.mean, found.mean) if math.isnan(found.low) else (found.low, found.high)
            if low < high:
                error = _error(found.mean, (low, high))
                axes.errorbar(found.mean, row, xerr=error, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
            end = (max(high, 0.0), row)
            axes.annotate(plus_minus(found), end, (5, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(range(len(estimates)), list(estimates), color=INK)
        axes.set_ylim(len(estimates) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
    return f"{path.parent.name}/{path.name}"


@contextmanager
def chart_axes(path: Path, xlabel: str, ylabel: str, *, log_x: bool, log_y: bool, height: float = HEIGHT) -> Iterator[Axes]:
    """Give empty axes in the style of the charts, then write the figure to `path`."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        for axis, is_log, scale in ((axes.xaxis, log_x, axes.set_xscale), (axes.yaxis, log_y, axes.set_yscale)):
            if is_log:
                scale("log")
                axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
        yield axes
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            if axis.get_scale() == "log" and not isinstance(axis.get_major_locator(), FixedLocator):
                axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)))
        path.parent.mkdir(parents=True, exist_ok=True)
        clean = {"Date": None, "Creator": None}
        figure.savefig(path, format="svg", bbox_inches="tight", pad_inches=0.12, facecolor="white", metadata=clean)


def _error(value: float, interval: tuple[float, float] | None) -> list[list[float]] | None:
    """Return the lengths of the whiskers; an interval need not hold its mean to the last bit."""
    return None if interval is None else [[max(0.0, value - interval[0])], [max(0.0, interval[1] - value)]]


def color_of(number: int) -> str:
    """Return the colour of a model."""
    return PALETTE[number % len(PALETTE)]


def _marker(number: int) -> str:
    return MARKERS[number // len(PALETTE) % len(MARKERS)]


def _draw_yardsticks(axes: Axes, hlines: Mapping[str, float]) -> None:
    for level in hlines.values():
        axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)))


def _whiskers(axes: Axes, points: Sequence[Point]) -> list[Bbox]:
    """Return where the intervals of the points stand, in pixels."""
    axes.figure.canvas.draw()
    lines = [[(x, point.y) for x in point.x_interval] for point in points if point.x_interval]
    lines += [[(point.x, y) for y in point.y_interval] for point in points if point.y_interval]
    boxes = []
    for line in lines:
        (left, bottom), (right, top) = axes.transData.transform(line)
        boxes.append(Bbox.from_extents(left - 4, bottom - 4, right + 4, top + 4))
    return boxes


def write_names(
    axes: Axes,
    places: Mapping[str, tuple[float, float, int]],
    others: Sequence[Bbox],
    sides: Sequence[tuple[int, str]],
) -> None:
    """Write each name at the first place near its point that covers neither another name nor a point nor one of `others`.

    Args:
        axes: with everything else in it.
        places: name -> x, y and the number of its model.
        others: in pixels.
        sides: on which a name may stand, best first.
    """
    axes.figure.canvas.draw()
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    reach = 4 * axes.figure.dpi / 72
    centres = [axes.transData.transform(place[:2]) for place in places.values()]
    taken = [Bbox.from_extents(*(centre - reach), *(centre + reach)) for centre in centres]
    taken += others
    choices = [(dx, dy, align) for dy in HEIGHTS for dx, align in sides if dx or dy]
    for name, (x, y, number) in places.items():
        style: dict[str, Any] = {"textcoords": "offset points", "color": color_of(number), "fontsize": 9, "va": "center"}
        label = axes.annotate(name, (x, y), (0, 0), **style)
        costs = []
        for dx, dy, align in choices:
            box = _placed(label, dx, dy, align)
            outside = 0.0 if sides == (RIGHT,) else box.width * box.height - _overlap(box, axes.bbox)
            outside *= 0.1 if dx > 0 else 1.0  # on the right the figure grows, on the left are the numbers of the axis
            costs.append(outside + sum(_overlap(box, other) for other in taken))
            if costs[-1] == 0:
                break
        taken.append(_placed(label, *choices[costs.index(min(costs))]))


def _placed(label: Annotation, dx: int, dy: int, align: str) -> Bbox:
    label.set_position((dx, dy))
    label.set_horizontalalignment(align)
    return label.get_window_extent()


def _overlap(first: Bbox, second: Bbox) -> float:
    common = Bbox.intersection(first, second)
    return 0.0 if common is None else float(common.width * common.height)
