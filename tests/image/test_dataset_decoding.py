"""Image files to arrays: conversions by exact pixel values, damaged and hostile files named and never trusted."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stages.image.dataset.decoding import NoScale, Unreadable, decode, resized, to_array, upright, with_channels


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, body: bytes, between: bytes = b"") -> bytes:
    """Write a PNG by hand: colour type 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA; one filter byte opens each row."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + between + chunk(b"IDAT", zlib.compress(b"\0" + body)) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


PALETTE = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 0]))
CONVERSIONS = {
    # name: (file, oddity, pixels)
    "grey": (png(2, 1, 8, 0, bytes([7, 9])), "", [[7], [9]]),
    "colour": (png(1, 1, 8, 2, bytes([1, 2, 3])), "", [[1, 2, 3]]),
    "two levels": (png(2, 1, 1, 0, b"\x40"), "mode 1", [[0], [255]]),
    "palette": (png(2, 1, 8, 3, bytes([1, 0]), PALETTE), "a palette", [[200, 100, 0], [10, 20, 30]]),
    "palette with transparency": (
        png(2, 1, 8, 3, bytes([1, 0]), PALETTE + chunk(b"tRNS", bytes([0, 255]))),
        "a palette with transparency",
        [[200, 100, 0], [255, 255, 255]],
    ),
    "alpha": (  # 10·51/255 + 255·204/255 = 206; opaque stays; clear is white
        png(3, 1, 8, 6, bytes([10, 20, 30, 51, 1, 2, 3, 255, 9, 9, 9, 0])),
        "transparency (mode RGBA)",
        [[206, 208, 210], [1, 2, 3], [255, 255, 255]],
    ),
    # (10·100 + 255·155) / 255 = 158.9
    "grey and alpha": (png(1, 1, 8, 4, bytes([10, 100])), "transparency (mode LA)", [[159]]),
    "a clear grey": (png(2, 1, 8, 0, bytes([7, 9]), chunk(b"tRNS", b"\0\x09")), "transparency (mode L)", [[7], [255]]),
    "16 bits grey": (png(2, 1, 16, 0, b"\x12\xff\xff\x00"), "16 bits for each value (mode I;16)", [[0x12], [0xFF]]),
    "16 bits, a clear grey": (
        png(2, 1, 16, 0, b"\x12\xff\x34\x56", chunk(b"tRNS", b"\x12\xff")),
        "16 bits for each value (mode I;16)",
        [[255], [0x34]],
    ),
    "16 bits colour": (
        png(1, 1, 16, 2, b"\x12\xff\x80\x00\x00\xff"),
        "16 bits for each value (mode RGB)",
        [[0x12, 0x80, 0]],
    ),
    "16 bits in PGM": (b"P5 1 1 65535\n\x80\xff", "16 bits for each value (mode I)", [[0x80]]),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_every_mode_becomes_8_bit_grey_or_colour_exactly(name):
    content, oddity, pixels = CONVERSIONS[name]
    decoded = decode(content)
    assert decoded.oddity == oddity
    assert to_array(decoded.image).tolist() == [pixels]


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("L", (2, 2), value) for value in (0, 255)]
    decoded = decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded.oddity == "2 frames"
    assert to_array(decoded.image).max() == 0


def test_values_without_a_scale_are_not_guessed():
    with pytest.raises(NoScale, match="mode F"):
        to_array(decode(saved(Image.new("F", (2, 2), 0.5), "TIFF")).image)


@pytest.mark.parametrize(
    ("orientation", "expected"), [(1, [[0, 1, 2], [3, 4, 5]]), (3, [[5, 4, 3], [2, 1, 0]]), (6, [[3, 0], [4, 1], [5, 2]])]
)
def test_the_exif_orientation_is_applied(orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)), "PNG", exif=exif)
    image, turned = upright(decode(content).image)
    assert turned == (orientation != 1)
    assert to_array(image)[..., 0].tolist() == expected


WHOLE = saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64).astype(np.uint8)), "PNG")
JPEG = saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64).astype(np.uint8)), "JPEG")
BROKEN = {
    "nothing": (b"", "no image of a known format"),
    "text": (b"label,file\n1,a.png\n", "no image of a known format"),
    "a program in PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
    "PNG cut off": (WHOLE[: len(WHOLE) // 2], "damaged or cut off"),
    "PNG with a flipped byte": (WHOLE[:50] + bytes([WHOLE[50] ^ 255]) + WHOLE[51:], "damaged or cut off"),
    "JPEG cut off": (JPEG[: len(JPEG) // 2], "damaged or cut off"),
    "a bomb": (png(9000, 9000, 8, 0, b""), "9,000 x 9,000 pixels, above 67,108,864: taken for a decompression bomb"),
    "a larger bomb": (png(90_000, 90_000, 8, 0, b""), "taken for a decompression bomb"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_says_why(name):
    content, reason = BROKEN[name]
    with pytest.raises(Unreadable, match=reason):
        decode(content)


def test_grey_is_repeated_and_colour_is_weighed():
    assert with_channels(np.array([[[7]]], np.uint8), 3).tolist() == [[[7, 7, 7]]]
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    # 0.299 · 255 = 76.2, 0.587 · 255 = 149.7, 0.114 · 255 = 29.07
    assert with_channels(colours, 1)[0, :, 0].tolist() == [76, 150, 29, 9]


def test_resizing_cuts_to_the_middle_and_stays_within_the_values():
    values = np.zeros((4, 8, 1), np.uint8)
    values[:, :2] = values[:, 6:] = 200  # outside the middle square
    values[:, 2:6] = 16
    assert resized(values, 2, 2)[..., 0].tolist() == [[16, 16], [16, 16]]
    edge = np.array([[0, 0, 16, 16]] * 4, np.uint8)[..., None]
    assert resized(edge, 3, 3).max() <= 16


def test_what_is_made_smaller_is_the_mean_of_all_pixels_and_not_a_choice_of_some():
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 200).astype(np.uint8)[..., None]
    assert resized(board, 2, 2).flatten().tolist() == pytest.approx([100] * 4, abs=2)
