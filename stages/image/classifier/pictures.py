"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from stages.common.plots import INK, PALETTE, STYLE

MOST_WITH_NUMBERS = 20
"""Up to this many classes each cell shows its number."""


def confusion_picture(path: Path, counts: np.ndarray, classes: Sequence[str]) -> str:
    """Draw how often each class is called each other one and write it to `path`.

    Args:
        path: an SVG file in the artifact's `figures` directory.
        counts: images of class i that were called j, int [K, K]; a cell is as dark as its share of row i.
        classes: K names.

    Returns:
        The path relative to the artifact.
    """
    num_classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(7.0, max(3.0, 1.2 + 0.42 * num_classes))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"axes.grid": False})
        figure = Figure(figsize=(side, side))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        shade = LinearSegmentedColormap.from_list("shade", ["#ffffff", PALETTE[0]])
        axes.pcolormesh(shares, cmap=shade, vmin=0, vmax=1, edgecolors="#e4e7eb", linewidth=0.4)
        axes.set(xlabel="called", ylabel="is", aspect="equal", xlim=(0, num_classes), ylim=(num_classes, 0))
        names = [name if len(name) <= 12 else f"{name[:11]}…" for name in classes]
        axes.set_xticks(np.arange(num_classes) + 0.5, names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(np.arange(num_classes) + 0.5, names)
        if num_classes <= MOST_WITH_NUMBERS:
            for row, column in zip(*np.nonzero(counts), strict=True):
                color = "white" if shares[row, column] > 0.55 else INK
                place = (column + 0.5, row + 0.5)
                axes.annotate(f"{counts[row, column]:,}", place, ha="center", va="center", fontsize=8, color=color)
        path.parent.mkdir(parents=True, exist_ok=True)
        clean = {"Date": None, "Creator": None}
        figure.savefig(path, format="svg", bbox_inches="tight", pad_inches=0.12, facecolor="white", metadata=clean)
    return f"{path.parent.name}/{path.name}"
