"""Image files to arrays: few formats, no file trusted, every conversion to 8-bit grey or colour exact and written out.

Legend: H height, W width, C channels (1 grey, 3 red green blue).
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What is opened; others are not, as Pillow would run another program for one of them (EPS)."""
MAX_PIXELS = 1 << 26
"""An image that claims more pixels is taken for a decompression bomb; nothing of it is decoded."""

_ORIENTATION = 0x0112
_OPAQUE = ("1", "L", "RGB", "P", "CMYK", "YCbCr")
_ALPHA = {"LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}


class Unreadable(Exception):
    """The content is no image that can be read; the message says why."""


class NoScale(Exception):
    """The values have no known black and white, so no level can be given to them."""


@dataclass(frozen=True)
class Decoded:
    """A wholly decoded image.

    Attributes:
        image: as it lies in the file.
        oddity: what keeps it from being plain 8-bit grey or colour, in words; empty when nothing does.
    """

    image: Image.Image
    oddity: str


def decode(content: bytes) -> Decoded:
    """Return the image in `content`.

    Raises:
        Unreadable: no image of a known format, damaged, cut off, or above MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata and of very large images; the first do not matter, the second are checked here.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = image.size
            if width * height == 0:
                raise Unreadable("it has no pixels")
            if width * height > MAX_PIXELS:
                raise Unreadable(f"{width:,} x {height:,} pixels, above {MAX_PIXELS:,}: taken for a decompression bomb")
            oddity = _oddity(image)
            image.load()
    except Image.UnidentifiedImageError:
        raise Unreadable(f"no image of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise Unreadable(f"more pixels than {MAX_PIXELS:,}: taken for a decompression bomb") from None
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error) as error:
        raise Unreadable(f"damaged or cut off: {error}") from None  # all that Pillow's readers raise on broken files
    return Decoded(image, oddity)


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return the image turned as its EXIF tag says, and whether that changed anything.

    Raises:
        Unreadable: the EXIF block is broken.
    """
    try:
        if image.getexif().get(_ORIENTATION, 1) in (None, 1):
            return image, False
        return ImageOps.exif_transpose(image), True
    except (SyntaxError, ValueError, TypeError, KeyError, OSError) as error:
        raise Unreadable(f"its EXIF block is broken: {error}") from None


def to_array(image: Image.Image) -> np.ndarray:
    """Return 8-bit values (H, W, C), C = 1 for grey modes, else 3.

    Transparency lies over white: (c·a + 255·(255 - a)) / 255, rounded. 16-bit values keep their high byte: v // 256. Of several
    frames the first is taken.

    Raises:
        NoScale: 32-bit values, or a colour space without a fixed way to grey and colour.
    """
    mode = image.mode
    if mode.startswith("I;16") or _is_wide_pnm(image):
        values = np.asarray(image).astype(np.int64)
        return _planes(np.where(values == image.info.get("transparency", -1), 255, values >> 8))
    if mode in _ALPHA:
        return _over_white(image.convert(_ALPHA[mode]))
    if "transparency" in image.info:
        return _over_white(image.convert("RGBA" if mode in ("P", "RGB") else "LA"))
    if mode not in _OPAQUE:
        raise NoScale(f"mode {mode}: no way to grey or colour is known for these values")
    return _planes(np.asarray(image.convert("L" if mode in ("1", "L") else "RGB")))


def with_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """Return (H, W, C) with `channels` channels: grey is repeated, colour becomes grey, 0.299 R + 0.587 G + 0.114 B, rounded.

    The weights are those of ITU-R BT.601.
    """
    if values.shape[2] == channels:
        return values
    if channels == 3:
        return values.repeat(3, axis=2)
    weights = np.array([299, 587, 114])
    return ((values.astype(np.int64) @ weights + 500) // 1000).astype(np.uint8)[..., None]


def resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (height, width, C): the middle of the image in the wanted shape, scaled by a triangle filter.

    The filter takes in all pixels when it makes an image smaller, and never goes beyond the values that are there.
    """
    values = _middle(values, height, width)
    planes = [Image.fromarray(np.ascontiguousarray(values[..., channel])) for channel in range(values.shape[2])]
    scaled = [plane.resize((width, height), Image.Resampling.BILINEAR) for plane in planes]
    return np.stack([np.asarray(plane) for plane in scaled], axis=2)


def _middle(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the largest part around the middle with the shape of `height` to `width`."""
    rows, columns = values.shape[:2]
    if columns * height > rows * width:
        kept_rows, kept_columns = rows, max(1, round(rows * width / height))
    else:
        kept_rows, kept_columns = max(1, round(columns * height / width)), columns
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return values[top : top + kept_rows, left : left + kept_columns]


def _over_white(image: Image.Image) -> np.ndarray:
    values = np.asarray(image).astype(np.int64)
    colour, alpha = values[..., :-1], values[..., -1:]
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _planes(values: np.ndarray) -> np.ndarray:
    return (values if values.ndim == 3 else values[..., None]).astype(np.uint8)


def _oddity(image: Image.Image) -> str:
    """Return `Decoded.oddity` of an image that is opened and not yet loaded."""
    frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # cameras put a preview behind the picture
    if frames > 1:
        return f"{frames} frames"
    # Colour of 16 bits comes out of Pillow as 8 bits, the high bytes; its raw mode is the only trace.
    if image.mode.startswith("I;16") or _is_wide_pnm(image) or any(";16" in str(tile.args) for tile in image.tile):
        return f"16 bits for each value (mode {image.mode})"
    if image.mode == "P":
        return "a palette with transparency" if "transparency" in image.info else "a palette"
    if image.mode in _ALPHA or "transparency" in image.info:
        return f"transparency (mode {image.mode})"
    return "" if image.mode in ("L", "RGB") else f"mode {image.mode}"


def _is_wide_pnm(image: Image.Image) -> bool:
    """True for a PNM above 8 bits, which Pillow scales to 16 bits in 32."""
    return image.mode == "I" and image.format == "PPM"
