"""Charts of shares with their intervals: along an axis with a line through them, and in rows that are read one by one.

In the style of `charts`: a colour and a shape for each model, the same in every chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.ticker import AutoLocator

from stages.common.charts import MARKERS, RIGHT, chart_axes, color_of, write_names
from stages.common.plots import INK, MUTED

APART = 1.05
"""Factor between the places of points that share one x on a logarithmic axis."""
LINE_HEIGHT = 0.17
"""Inches of 72 points between two models in a row."""
CAPTION_HEIGHT = 1.0


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one model.

    Attributes:
        number: of the model, gives colour and shape.
        xs, means: of the points.
        intervals: (low, high) of each mean.
        line: (xs, ys) of a curve through them; None: the points are joined.
    """

    number: int
    xs: Sequence[float]
    means: Sequence[float]
    intervals: Sequence[tuple[float, float]]
    line: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One mean in a row, with its interval (low, high); `number` as of `Series`."""

    number: int
    mean: float
    interval: tuple[float, float]


def fitted_chart(path: Path, curves: Mapping[str, Series], *, xlabel: str, ylabel: str) -> str:
    """Draw points with whiskers and the curves fitted to them on logarithmic axes, each named at its end.

    Points of one x are set a little apart. A mean of 0 is not drawn, and whiskers that reach 0 leave the axes below.

    Args:
        path: an SVG file in the artifact's `figures` directory.
        curves: by name.
        xlabel, ylabel: with units.

    Returns:
        The path relative to the artifact.
    """
    with chart_axes(path, xlabel, ylabel, log_x=True, log_y=True) as axes:
        middle = (len(curves) - 1) / 2
        ends = {}
        for place, (name, one) in enumerate(curves.items()):
            _points(axes, one, APART ** (place - middle), only_positive=True)
            if one.line is not None:
                axes.plot(*one.line, color=color_of(one.number), linewidth=1.4)
            if one.means[-1] > 0:
                ends[name] = (max(one.xs) * APART**middle, one.means[-1], one.number)
        axes.margins(x=0.05)
        axes.set_xticks(sorted({x for one in curves.values() for x in one.xs}))
        if positive := [mean for one in curves.values() for mean in one.means if mean > 0]:
            axes.set_ylim(min(positive) / 2, 1.1 * max(high for one in curves.values() for _, high in one.intervals))
        from_the_top = dict(sorted(ends.items(), key=lambda end: -end[1][1]))
        write_names(axes, from_the_top, [], (RIGHT,))
    return f"{path.parent.name}/{path.name}"


def joined_chart(path: Path, curves: Mapping[str, Series], *, xlabel: str, ylabel: str) -> str:
    """Draw joined points with whiskers on plain axes, a dotted line y = x, and a legend of the models; see `fitted_chart`."""
    with chart_axes(path, xlabel, ylabel, log_x=False, log_y=False) as axes:
        for one in curves.values():
            axes.plot(one.xs, one.means, color=color_of(one.number), linewidth=1.2)
        handles = {name: _points(axes, one, 1.0, only_positive=False) for name, one in curves.items()}
        low = min(min(*one.xs, *one.means) for one in curves.values())
        axes.plot([low, 1], [low, 1], color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
        axes.margins(x=0.02, y=0.05)
        _legend(axes, handles)
    return f"{path.parent.name}/{path.name}"


def rows_chart(path: Path, rows: Mapping[str, Mapping[str, Dot]], *, xlabel: str, vlines: Sequence[float] = ()) -> str:
    """Draw for each row one dot with its interval for each model, one below the other, with a legend of the models.

    Args:
        path: an SVG file in the artifact's `figures` directory.
        rows: name of a row -> name of a model -> its dot; from top to bottom.
        xlabel: with the unit.
        vlines: x of yardsticks, drawn as dotted vertical lines.

    Returns:
        The path relative to the artifact.
    """
    most = max(len(dots) for dots in rows.values())
    height = CAPTION_HEIGHT + LINE_HEIGHT * (most + 1) * len(rows)
    with chart_axes(path, xlabel, "", log_x=False, log_y=False, height=height) as axes:
        handles = {}
        for row, dots in enumerate(rows.values()):
            for place, (name, dot) in enumerate(dots.items()):
                low, high = dot.interval
                handles[name] = axes.errorbar(
                    dot.mean,
                    row + (place + 1) / (most + 1) - 0.5,
                    xerr=[[max(0.0, dot.mean - low)], [max(0.0, high - dot.mean)]],
                    fmt=_shape(dot.number),
                    color=color_of(dot.number),
                    elinewidth=1,
                    markersize=5,
                )
        for x in vlines:
            axes.axvline(x, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
        for row in range(1, len(rows)):
            axes.axhline(row - 0.5, color="#afb8c1", linewidth=0.6)
        axes.set_yticks(range(len(rows)), list(rows), color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(AutoLocator())
        _legend(axes, handles)
    return f"{path.parent.name}/{path.name}"


def _points(axes: Axes, one: Series, shift: float, *, only_positive: bool) -> ErrorbarContainer:
    found = zip(one.xs, one.means, one.intervals, strict=True)
    shown = [(x * shift, mean, low, high) for x, mean, (low, high) in found if mean > 0 or not only_positive]
    return axes.errorbar(
        [x for x, *_ in shown],
        [mean for _, mean, *_ in shown],
        yerr=[[max(0.0, mean - low) for _, mean, low, _ in shown], [max(0.0, high - mean) for _, mean, _, high in shown]],
        fmt=_shape(one.number),
        color=color_of(one.number),
        elinewidth=1,
        markersize=5,
    )


def _legend(axes: Axes, handles: Mapping[str, ErrorbarContainer]) -> None:
    axes.legend(handles.values(), handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=min(len(handles), 4), fontsize=9)


def _shape(number: int) -> str:
    return MARKERS[number % len(MARKERS)]
