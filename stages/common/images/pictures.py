"""Sheets of images as one PNG: every pixel of the data a square of equal pixels, so that nothing is smoothed away.

Legend: N images, C channels (1 or 3), H height, W width, K levels.

Level x is shown as round(255 x / (K - 1)): 0 black, K - 1 white. Text stands in the font that matplotlib brings. The same
images give the same bytes: no date and no metadata are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont, get_font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

INK, PAPER = (0x24, 0x29, 0x2F), (0xFF, 0xFF, 0xFF)
GAP = 3
"""White pixels between two images."""
CELL = 40
"""Where no scale is given, an image is shown at least this wide and high, in pixels."""
LETTERS, LINE = 13, 18
"""Height of the letters and of a line of text, in pixels."""
NAME_WIDTH = 220
"""A name beside a row is cut to this width, in pixels."""


def sheet(
    images: Tensor,
    levels: int,
    columns: int,
    path: Path,
    *,
    scale: int | None = None,
    titles: Sequence[str] | None = None,
) -> str:
    """Draw images row by row and write them to `path`.

    Args:
        images: uint8 (N, C, H, W) on the grid, N >= 1.
        levels: K of the grid.
        columns: images in a row.
        path: a PNG file in the artifact's `figures` directory.
        scale: side of the square that shows one pixel; null: the smallest that makes an image CELL pixels wide and high.
        titles: a line under each image, cut to the image's width.

    Returns:
        The path relative to the artifact, as `context.section.figure` takes it.

    Raises:
        ValueError: nothing to draw, another shape or type, a level above K - 1, as many titles as images are not there.
    """
    tiles = _tiles(images, levels, scale)
    if titles is not None and len(titles) != len(tiles):
        raise ValueError(f"{len(titles)} titles for {len(tiles)} images; give one for each")
    height, width = tiles.shape[1:3]
    step_y, step_x = height + GAP + (LINE if titles is not None else 0), width + GAP
    columns = min(columns, len(tiles))
    num_rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (columns * step_x + GAP, num_rows * step_y + GAP), PAPER)
    for index, tile in enumerate(tiles):
        x, y = GAP + index % columns * step_x, GAP + index // columns * step_y
        canvas.paste(Image.fromarray(tile), (x, y))
        if titles is not None:
            _write(canvas, (x + width / 2, y + height + LINE / 2), titles[index], width, anchor="mm")
    return _save(canvas, path)


def named_rows(
    rows: Mapping[str, Tensor],
    levels: int,
    path: Path,
    *,
    scale: int | None = None,
    headings: Sequence[str] | None = None,
) -> str:
    """Draw one row of images for each name, the name at its left, and write them to `path`.

    Args:
        rows: name -> uint8 (N, C, H, W); N may differ and may be 0, H and W may not.
        levels: K of the grid.
        path: a PNG file in the artifact's `figures` directory.
        scale: as in `sheet`.
        headings: a line over each column, cut to the column's width.

    Returns:
        The path relative to the artifact.

    Raises:
        ValueError: as in `sheet`, or more headings than columns.
    """
    drawn = {name: _tiles(images, levels, scale) for name, images in rows.items() if len(images)}
    if not drawn:
        raise ValueError("there is nothing to draw: every row is empty")
    shapes = {tiles.shape[1:3] for tiles in drawn.values()}
    columns = max(len(tiles) for tiles in drawn.values())
    if len(shapes) > 1 or len(headings or ()) > columns:
        raise ValueError(f"rows of one size and at most {columns} headings are needed, got {sorted(shapes)}, {headings}")
    ((height, width),) = shapes
    names = [_fitting(name, NAME_WIDTH) for name in rows]
    left = max(round(_font().getlength(name)) for name in names) + 3 * GAP
    top = LINE if headings else 0
    step_y = max(height, LINE) + GAP
    canvas = Image.new("RGB", (left + columns * (width + GAP), top + len(rows) * step_y + GAP), PAPER)
    for column, heading in enumerate(headings or ()):
        _write(canvas, (left + column * (width + GAP) + width / 2, LINE / 2), heading, width, anchor="mm")
    for row, (name, shown) in enumerate(zip(rows, names, strict=True)):
        y = top + GAP + row * step_y
        _write(canvas, (left - 2 * GAP, y + height / 2), shown, NAME_WIDTH, anchor="rm")
        for column, tile in enumerate(drawn.get(name, ())):
            canvas.paste(Image.fromarray(tile), (left + column * (width + GAP), y))
    return _save(canvas, path)


def to_rgb(images: Tensor, levels: int) -> np.ndarray:
    """Return images (N, C, H, W) on a grid of K levels as uint8 (N, H, W, 3) for the eye.

    Raises:
        ValueError: another shape or type, or a level above K - 1.
    """
    values = np.asarray(images)
    if values.ndim != 4 or values.shape[1] not in (1, 3) or values.dtype != np.uint8:
        raise ValueError(f"pictures are uint8 (N, 1 or 3, H, W), got {values.dtype} {values.shape}")
    if values.size and int(values.max()) >= levels:
        raise ValueError(f"level {int(values.max())} is not on a grid of {levels} levels")
    table = np.round(np.arange(levels) * (255 / (levels - 1))).astype(np.uint8)
    shown = table[values].transpose(0, 2, 3, 1)
    return np.broadcast_to(shown, (*shown.shape[:3], 3))


def _tiles(images: Tensor, levels: int, scale: int | None) -> np.ndarray:
    """Return the enlarged images, uint8 (N, H·scale, W·scale, 3)."""
    shown = to_rgb(images, levels)
    if not shown.size:
        raise ValueError("there is no image to draw")
    scale = scale or max(1, -(-CELL // min(shown.shape[1:3])))
    return np.ascontiguousarray(shown.repeat(scale, axis=1).repeat(scale, axis=2))


def _write(canvas: Image.Image, place: tuple[float, float], text: str, width: int, *, anchor: str) -> None:
    ImageDraw.Draw(canvas).text(place, _fitting(text, width), fill=INK, font=_font(), anchor=anchor)


def _fitting(text: str, width: int) -> str:
    """Return `text` cut to `width` pixels; what the font lacks is shown as its code point."""
    known = get_font(findfont("DejaVu Sans")).get_char_index
    shown = "".join(char if char.isprintable() and known(ord(char)) else f"U+{ord(char):04X}" for char in text)
    if _font().getlength(shown) <= width:
        return shown
    while shown and _font().getlength(shown + "…") > width:
        shown = shown[:-1]
    return shown + "…"


def _font() -> ImageFont.FreeTypeFont:
    # The plain layout: the other one needs a library that may be missing, and would then give other pixels.
    return ImageFont.truetype(findfont("DejaVu Sans"), LETTERS, layout_engine=ImageFont.Layout.BASIC)


def _save(canvas: Image.Image, path: Path) -> str:
    if path.suffix != ".png":
        raise ValueError(f"{path.name}: sheets are PNG, the name must end in .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, format="PNG", compress_level=9)
    return f"{path.parent.name}/{path.name}"
