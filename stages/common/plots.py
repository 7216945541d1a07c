"""Figures of the reports: three kinds of chart in one calm style, drawn by matplotlib into SVG.

Colours are the set of Okabe and Ito ("Color Universal Design", 2008), which people with colour-blindness can tell apart,
in an order with enough contrast on white; lines also differ by dashes once a chart has more than four of them. Text is
saved as paths, so a figure looks the same on every machine, and the same numbers give the same bytes: a fixed hash salt,
no date, no state shared with other figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import AutoLocator, FuncFormatter, Locator, LogLocator, NullFormatter

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#3d8fc4", "#555555")
"""Blue, vermilion, green, purple, ochre, sky, grey: in this order in every chart."""

INK, MUTED, GRID = "#24292f", "#57606a", "#e4e7eb"
WIDTH, HEIGHT = 6.4, 3.4
"""Size of a chart in inches of 72 points: two columns of text wide."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "groundup",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#afb8c1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelpad": 6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "axes.prop_cycle": cycler(color=PALETTE),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "text.parse_math": False,
}


def line_chart(
    path: Path,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    hlines: Mapping[str, float] | None = None,
) -> str:
    """Draw curves, each named at its right end, and write them to `path`.

    Args:
        path: an SVG file in the artifact's `figures` directory.
        series: name of a curve -> (xs, ys), two sequences of one length. Points that are not finite leave a gap.
        xlabel, ylabel: names of the axes with their units, such as "loss (nat/token)".
        title: a short heading over the chart; the report writes the caption.
        log_x, log_y: logarithmic axes; points that are not positive leave a gap.
        hlines: name -> y of yardsticks, drawn as dotted horizontal lines.

    Returns:
        The path relative to the artifact, as `context.section.figure` takes it.
    """
    with _chart(path, xlabel=xlabel, ylabel=ylabel, title=title) as axes:
        ends = []
        for index, (name, (xs, ys)) in enumerate(series.items()):
            x, y = _drawable(xs, ys, log_x=log_x, log_y=log_y)
            color = PALETTE[index % len(PALETTE)]
            dashes = "-" if index < 4 else (0, (4, 1 + index // 4))
            axes.plot(x, y, color=color, linestyle=dashes, marker="o" if len(x) < 2 else "", markersize=4)
            shown = np.flatnonzero(np.isfinite(y))
            if len(shown):
                ends.append((name, float(y[shown[-1]]), color))
        for name, level in (hlines or {}).items():
            axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
            ends.append((name, level, MUTED))
        _scale(axes, log_x=log_x, log_y=log_y)
        axes.margins(x=0.01, y=0.06)
        if len(ends) > 1:
            label_ends(axes, ends)
    return _relative(path)


def bar_chart(
    path: Path,
    labels: Sequence[str],
    values: Sequence[float],
    *,
    ylabel: str,
    title: str = "",
    intervals: Sequence[tuple[float, float]] | None = None,
) -> str:
    """Draw one horizontal bar per label, the value written beside it, and write them to `path`.

    Args:
        path: an SVG file in the artifact's `figures` directory.
        labels: names of the bars, from top to bottom.
        values: their lengths.
        ylabel: what the values are, with the unit; it stands along the value axis.
        title: a short heading over the chart.
        intervals: (low, high) of each value, drawn as whiskers.

    Returns:
        The path relative to the artifact.
    """
    height = max(1.6, 0.9 + 0.36 * len(labels))
    with _chart(path, xlabel=ylabel, ylabel="", title=title, height=height) as axes:
        rows = np.arange(len(labels))
        axes.barh(rows, values, height=0.62, color=PALETTE[0])
        reach = list(values)
        if intervals is not None:
            reach = [high for _, high in intervals]
            errors = np.array([[v - low, high - v] for v, (low, high) in zip(values, intervals, strict=True)]).T
            axes.errorbar(values, rows, xerr=errors, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
        axes.set_yticks(rows, [_label(label) for label in labels], color=INK)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        for row, (value, end) in enumerate(zip(values, reach, strict=True)):
            place = (max(value, end, 0.0), row)
            axes.annotate(readable(value), place, (5, 0), textcoords="offset points", va="center", fontsize=9)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))
    return _relative(path)


def histogram(
    path: Path,
    values: Sequence[float] | np.ndarray,
    *,
    xlabel: str,
    ylabel: str = "documents",
    bins: int = 50,
    log_x: bool = False,
    title: str = "",
) -> str:
    """Draw how often each size occurs, with the median marked, and write it to `path`.

    Args:
        path: an SVG file in the artifact's `figures` directory.
        values: one number per item. With `log_x`, bins are equal on the logarithmic axis and items <= 0 are left out.
        xlabel: what was measured, with its unit.
        ylabel: what was counted.
        bins: number of bars.
        title: a short heading over the chart.

    Returns:
        The path relative to the artifact.
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[np.isfinite(data) & ((data > 0) | (not log_x))]
    with _chart(path, xlabel=xlabel, ylabel=ylabel, title=title) as axes:
        if len(data):
            axes.hist(data, bins=_edges(data, bins, log_x=log_x), color=PALETTE[0], edgecolor="white", linewidth=0.4)
            median = float(np.median(data))
            axes.axvline(median, color=INK, linewidth=1.2, linestyle=(0, (1, 2)))
            mark = f"median {readable(median)}"
            axes.margins(y=0.12)
            axes.annotate(mark, (median, 1), (5, -1), xycoords=("data", "axes fraction"), textcoords="offset points", va="top")
        _scale(axes, log_x=log_x, log_y=False)
    return _relative(path)


def readable(value: float) -> str:
    """Return `value` for people: four significant digits, commas between thousands."""
    if not math.isfinite(value):
        return str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e15:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")
    decimals = 0 if value == 0 else max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


@contextmanager
def _chart(path: Path, *, xlabel: str, ylabel: str, title: str, height: float = HEIGHT) -> Iterator[Axes]:
    """Give empty axes in the house style, then write the figure; pyplot, which keeps figures alive, is not used."""
    if path.suffix != ".svg":
        raise ValueError(f"{path.name}: figures are SVG, the name must end in .svg")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(WIDTH, height))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_xlabel(_label(xlabel, 80))
        axes.set_ylabel(_label(ylabel, 48))
        axes.set_title(_label(title, 72))
        yield axes
        path.parent.mkdir(parents=True, exist_ok=True)
        clean = {"Date": None, "Creator": None}
        figure.savefig(path, format="svg", bbox_inches="tight", pad_inches=0.12, facecolor="white", metadata=clean)


def _relative(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _drawable(xs: Sequence[float], ys: Sequence[float], *, log_x: bool, log_y: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the points as arrays; what the axes cannot show becomes NaN, which matplotlib draws as a gap."""
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"a curve needs as many xs as ys, got {x.shape} and {y.shape}")
    shown = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not log_x)) & ((y > 0) | (not log_y))
    return np.where(shown, x, np.nan), np.where(shown, y, np.nan)


def _scale(axes: Axes, *, log_x: bool, log_y: bool) -> None:
    for axis, is_log, set_scale in ((axes.xaxis, log_x, axes.set_xscale), (axes.yaxis, log_y, axes.set_yscale)):
        if is_log and math.isfinite(axis.get_minpos()):  # without a positive value there is no logarithmic axis
            set_scale("log")
            axis.set_major_locator(_log_locator(axis.get_view_interval))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: readable(value)))


def _log_locator(limits: Callable[[], tuple[float, float]]) -> Locator:
    """Return ticks at 1, 2, 5 per decade, at powers of ten over many decades, and plain ones within a fifth of a decade."""
    low, high = (max(float(limit), 1e-300) for limit in limits())
    decades = math.log10(max(high, low) / low)
    if decades < 0.7:
        return AutoLocator()
    return LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,))


def _edges(data: np.ndarray, bins: int, *, log_x: bool) -> np.ndarray:
    low, high = float(data.min()), float(data.max())
    if low == high:
        return np.array([low * 0.5, high * 1.5]) if log_x else np.array([low - 0.5, high + 0.5])
    return np.geomspace(low, high, bins + 1) if log_x else np.linspace(low, high, bins + 1)


def label_ends(axes: Axes, ends: list[tuple[str, float, str]]) -> None:
    """Name every line at the right edge, at its height, moved apart by one line of text where they would touch.

    `ends` are (name, y, colour); names stand in the order of the y.
    """
    axes.figure.canvas.draw()
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    pixels = [float(axes.transData.transform((axes.get_xlim()[0], y))[1]) for _, y, _ in ends]
    bottom, top = (float(edge) for edge in axes.bbox.intervaly)
    apart = 12.5 * axes.figure.dpi / 72
    for index, place in _spread(pixels, apart, bottom, top).items():
        name, _, color = ends[index]
        fraction = (place - bottom) / (top - bottom)
        style: dict[str, Any] = {"color": color, "va": "center", "fontsize": 9}
        axes.annotate(_label(name), (1, fraction), (6, 0), xycoords="axes fraction", textcoords="offset points", **style)


def _spread(places: Sequence[float], apart: float, bottom: float, top: float) -> dict[int, float]:
    """Return index -> place, in the order of `places`, at least `apart` from each other and inside [bottom, top] if they fit."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    result: dict[int, float] = {}
    floor = bottom
    for index in order:
        result[index] = max(places[index], floor)
        floor = result[index] + apart
    ceiling = max(top, bottom + apart * (len(places) - 1))
    for index in reversed(order):
        result[index] = min(result[index], ceiling)
        ceiling = result[index] - apart
    return result


def _label(text: str, width: int = 32) -> str:
    """Return `text` in one short line; what the font lacks (it covers no Chinese, say) is shown as its code point."""
    text = text if len(text) <= width else text[: width - 1] + "…"
    known = get_font(findfont("DejaVu Sans")).get_char_index
    return "".join(char if char.isprintable() and known(ord(char)) else f"U+{ord(char):04X}" for char in text)
