"""Named sets of images on which classifiers of all kinds are judged: test, corrupted test, and images that are no such thing.

Legend: N images, C channels, H height, W width, K levels.

The sets are a pure function of the images: every model that is compared sees the very same ones, whatever its seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from stages.common.images.corruptions import BLUR, NOISE, PALE, SHIFTED, blurred, noisy, pale, shifted
from stages.common.images.grid import Grid, load_grid, load_split
from stages.common.images.labels import labelled
from stages.common.images.noise import seeded_generator

TEST = "test"
UPSIDE_DOWN, SWAPPED, HALVES = "upside down", "light and dark swapped", "halves of two classes"
Role = Literal["test", "corrupted", "foreign"]
_SEED = 2026


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images to be judged.

    Attributes:
        name: unique.
        role: `test` and `corrupted` images have a class, `foreign` ones have none.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), -1 for foreign images.
    """

    name: str
    role: Role
    images: Tensor
    labels: Tensor

    @property
    def sha256(self) -> str:
        """Of pixels and labels."""
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()


def image_sets(images: Artifact, foreign: Sequence[Artifact], *, most: int, with_all: bool) -> list[ImageSet]:
    """Return test alone, or test, its corruptions and the foreign sets; at most `most` images in each.

    Raises:
        DataError: no test image has a label, or two artifacts of foreign images have one name.
    """
    grid = load_grid(images)
    test = labelled(load_split(images, "test"))
    real, labels = test.images[:most], test.labels[:most]
    if not len(real):
        raise DataError("no test image has a label; take images with labels")
    sets = [ImageSet(name=TEST, role="test", images=real, labels=labels)]
    if with_all:
        changed = {
            BLUR: blurred(real),
            NOISE: noisy(real, grid.levels, seeded_generator(_SEED, 0)),
            SHIFTED: shifted(real),
            PALE: pale(real),
        }
        sets += [ImageSet(name=name, role="corrupted", images=found, labels=labels) for name, found in changed.items()]
        sets += [_foreign_set(name, found) for name, found in _made_foreign(real, labels, grid.levels).items()]
        sets += [_foreign_set(load_grid(other).name, _on_grid(other, grid, most)) for other in foreign]
    names = [one.name for one in sets]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"needs.foreign: two sets of images are called '{repeated[0]}'; name each once")
    return sets


def _made_foreign(real: Tensor, labels: Tensor, levels: int) -> dict[str, Tensor]:
    """Return images that are made of test images and show none of their classes."""
    order = torch.randperm(len(real), generator=seeded_generator(_SEED, 1))
    other, differs = real[order], labels[order] != labels
    half = real.shape[2] // 2
    halves = torch.cat([real[:, :, :half], other[:, :, half:]], dim=2)[differs]
    sets = {UPSIDE_DOWN: real.flip(2), SWAPPED: levels - 1 - real, HALVES: halves}
    return {name: found for name, found in sets.items() if len(found)}


def _on_grid(other: Artifact, grid: Grid, most: int) -> Tensor:
    """Return test images of `other` with the size, the channels and the levels of `grid`, by means of areas."""
    theirs = load_grid(other)
    values = (load_split(other, "test").images[:most].float() + 0.5) / theirs.levels
    values = functional.adaptive_avg_pool2d(values, (grid.height, grid.width))
    if theirs.channels != grid.channels:
        values = values.mean(dim=1, keepdim=True).expand(-1, grid.channels, -1, -1)
    return (values * grid.levels).floor().clamp(0, grid.levels - 1).to(torch.uint8).contiguous()


def _foreign_set(name: str, images: Tensor) -> ImageSet:
    return ImageSet(name=name, role="foreign", images=images, labels=torch.full((len(images),), -1))
