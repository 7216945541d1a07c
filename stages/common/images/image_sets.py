"""Named sets of images on which classifiers of all kinds are judged: validation, test, corrupted test, and foreign images.

Legend: N images, C channels, H height, W width, K levels.

The sets are a pure function of the images: every model that is compared sees the very same ones, whatever its seed. Settings
and temperatures are chosen on validation images; a trial of settings need not see the test images at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from stages.common.images.config import ClassSets
from stages.common.images.corruptions import BLUR, NOISE, PALE, SHIFTED, blurred, noisy, pale, shifted
from stages.common.images.grid import Grid, load_grid, load_split
from stages.common.images.labels import labelled
from stages.common.images.noise import seeded_generator

TEST: Final = "test"
VALIDATION: Final = "validation"
QUARTERS, SWAPPED, HALVES = "quarters swapped", "light and dark swapped", "halves of two classes"
Role = Literal["test", "validation", "corrupted", "foreign"]
_SEED = 2026


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images to be judged.

    Attributes:
        name: unique.
        role: `test`, `validation` and `corrupted` images have a class, `foreign` ones have none.
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


def image_sets(images: Artifact, foreign: Sequence[Artifact], *, most: int, which: ClassSets) -> list[ImageSet]:
    """Return validation alone, or test and validation, or those with the corruptions of test and the foreign sets.

    Args:
        images: whose splits are taken.
        foreign: images of something else.
        most: images in each set at most.
        which: "validation", "test" or "all".

    Raises:
        DataError: no image of a split has a label, or two artifacts of foreign images have one name.
    """
    validation = _labelled_set(images, VALIDATION, most)
    if which == "validation":
        return [validation]
    test = _labelled_set(images, TEST, most)
    sets = [test, validation]
    if which == "all":
        grid = load_grid(images)
        sets += [
            ImageSet(name=name, role="corrupted", images=found, labels=test.labels)
            for name, found in _corrupted(test.images, grid.levels).items()
        ]
        sets += [_foreign_set(name, found) for name, found in _made_foreign(test.images, test.labels, grid.levels).items()]
        sets += [_foreign_set(load_grid(other).name, _on_grid(other, grid, most)) for other in foreign]
    names = [one.name for one in sets]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"needs.foreign: two sets of images are called '{repeated[0]}'; name each once")
    return sets


def _labelled_set(images: Artifact, split: Literal["test", "validation"], most: int) -> ImageSet:
    found = labelled(load_split(images, split))
    if not len(found):
        raise DataError(f"no {split} image has a label; take images with labels")
    return ImageSet(name=split, role=split, images=found.images[:most], labels=found.labels[:most])


def _corrupted(real: Tensor, levels: int) -> dict[str, Tensor]:
    """Return images that still show their class, each with one fault."""
    return {
        BLUR: blurred(real),
        NOISE: noisy(real, levels, seeded_generator(_SEED, 0)),
        SHIFTED: shifted(real),
        PALE: pale(real),
    }


def _made_foreign(real: Tensor, labels: Tensor, levels: int) -> dict[str, Tensor]:
    """Return images that are made of test images and show hardly any of their classes.

    No image is only turned or mirrored: a 0, 1, 3 or 8 on its head is still one.
    """
    order = torch.randperm(len(real), generator=seeded_generator(_SEED, 1))
    other, differs = real[order], labels[order] != labels
    height, width = real.shape[2] // 2, real.shape[3] // 2
    halves = torch.cat([real[:, :, :height], other[:, :, height:]], dim=2)[differs]
    sets = {QUARTERS: real.roll((height, width), (2, 3)), SWAPPED: levels - 1 - real, HALVES: halves}
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
