"""Sheets of images: every pixel is a square of equal pixels in its place, the same bytes each time, hard names drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from stages.common.images.pictures import GAP, LINE, named_rows, sheet, to_rgb


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.info == {}
        return np.asarray(image)


def test_the_levels_of_a_grid_run_from_black_to_white():
    images = torch.tensor([0, 1, 8, 16], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert to_rgb(images, 17)[0, :, :, 1].tolist() == [[0, 16], [128, 255]]
    assert to_rgb(images % 2, 2)[0, :, :, 2].tolist() == [[0, 255], [0, 0]]


def test_a_sheet_shows_each_pixel_as_a_square_in_its_place(tmp_path):
    images = torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2)
    assert sheet(images, 12, 2, tmp_path / "figures" / "a.png", scale=3) == "figures/a.png"
    drawn = pixels(tmp_path / "figures" / "a.png")
    assert drawn.shape == (2 * (6 + GAP) + GAP, 2 * (6 + GAP) + GAP, 3)
    third = drawn[6 + 2 * GAP : 12 + 2 * GAP, GAP : 6 + GAP, 0]
    expected = np.round(np.array([[8, 9], [10, 11]]) * 255 / 11).astype(np.uint8)
    assert (third == expected.repeat(3, axis=0).repeat(3, axis=1)).all()
    assert (drawn[6 + 2 * GAP :, 6 + 2 * GAP :] == 255).all()


def test_colours_stay_in_their_channels(tmp_path):
    red = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    red[0, 0] = 3
    sheet(red, 4, 1, tmp_path / "red.png", scale=1)
    assert pixels(tmp_path / "red.png")[GAP, GAP].tolist() == [255, 0, 0]


def test_rows_carry_their_names_and_may_differ_in_length(tmp_path):
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    rows = {"flow matching": images, "gan": images[:1], "none": images[:0]}
    named_rows(rows, 17, tmp_path / "rows.png", scale=5, headings=["1/8", "1/2"])
    drawn = pixels(tmp_path / "rows.png")
    left = drawn.shape[1] - 3 * (40 + GAP)
    first, second = LINE + GAP, LINE + 2 * GAP + 40
    assert (drawn[first, left + 2 * (40 + GAP) : -GAP] == 0).all()
    assert (drawn[second, left + 40 + GAP :] == 255).all()
    assert [bool((drawn[y : y + 40, :left] < 128).any()) for y in (first, second, second + 40 + GAP)] == [True] * 3
    assert (drawn[:LINE, left:] < 128).any()


def test_the_same_images_give_the_same_bytes(tmp_path):
    images = torch.arange(64, dtype=torch.uint8).reshape(4, 1, 4, 4)
    for name in ("a.png", "b.png"):
        sheet(images, 64, 2, tmp_path / name, titles=["one", "T-shirt/top and much more", "文", "\n"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("images", "options", "rule"),
    [
        (torch.zeros(0, 1, 2, 2, dtype=torch.uint8), {}, "no image to draw"),
        (torch.zeros(1, 2, 2, 2, dtype=torch.uint8), {}, "uint8 \\(N, 1 or 3, H, W\\)"),
        (torch.zeros(1, 1, 2, 2), {}, "got float32"),
        (torch.full((1, 1, 2, 2), 17, dtype=torch.uint8), {}, "level 17 is not on a grid of 17"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), {"titles": ["a", "b"]}, "2 titles for 1 images"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, images, options, rule):
    with pytest.raises(ValueError, match=rule):
        sheet(images, 17, 2, tmp_path / "a.png", **options)
