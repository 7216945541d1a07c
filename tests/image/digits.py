"""Artifacts of kind `images` for tests: scikit-learn's handwritten digits, and a tiny set of bars.

Legend: B images, C = 1 channel, H height, W width.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.contract import StageConfig
from stages.common.images.grid import SPLITS, Grid, Split, save_images
from stages.common.images.noise import seeded_generator
from tests.harness import commit, make_context

NUM_VALIDATION, NUM_TEST = 97, 500
"""Digits held out; the other 1,200 of the 1,797 may be trained on."""


class ImagesConfig(StageConfig):
    """Stands for the config of the stage that makes images."""

    produces: ClassVar[str] = "images"
    name: str
    num_train: int


def digits_artifact(root: Path, *, num_train: int = 1200) -> Artifact:
    """Return the 8x8 digits, 17 levels, split by a fixed permutation: 97 for validation, 500 for test, at most 1,200 to train."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(digits.target).long()
    order = torch.randperm(len(images), generator=seeded_generator(0))
    held_out = NUM_VALIDATION + NUM_TEST
    assert 0 < num_train <= len(images) - held_out, f"num_train is {num_train}; there are {len(images) - held_out} to train on"
    bounds = (0, NUM_VALIDATION, held_out, held_out + num_train)
    parts = [order[first:stop] for first, stop in itertools.pairwise(bounds)]
    rows = dict(zip(("validation", "test", "train"), parts, strict=True))
    splits = {name: Split(images[rows[name]], labels[rows[name]]) for name in SPLITS}
    return _saved(root, "digits", splits, levels=17, classes=tuple("0123456789"))


def toy_artifact(root: Path, *, levels: int = 4, height: int = 4, width: int = 4, num: int = 64) -> Artifact:
    """Return `num` training images (half as many of each other split): one bright row or column on dark noise."""
    splits = {name: _bars(num if name == "train" else num // 2, levels, height, width, seed) for seed, name in enumerate(SPLITS)}
    return _saved(root, "bars", splits, levels=levels, classes=("row", "column"))


def _bars(num: int, levels: int, height: int, width: int, seed: int) -> Split:
    generator = seeded_generator(seed)
    labels = torch.randint(2, (num,), generator=generator)
    images = torch.randint(max(1, levels // 2), (num, 1, height, width), generator=generator).to(torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        place = int(torch.randint((height, width)[label], (1,), generator=generator))
        image.select(1 + label, place).fill_(levels - 1)
    return Split(images, labels)


def _saved(root: Path, name: str, splits: dict[str, Split], *, levels: int, classes: tuple[str, ...]) -> Artifact:
    channels, height, width = splits["train"].images.shape[1:]
    grid = Grid(
        name=name,
        license="cc-by-4.0",
        levels=levels,
        channels=channels,
        height=height,
        width=width,
        classes=classes,
        sizes={split: len(found) for split, found in splits.items()},
        sha256={split: _sha256(found.images, found.labels) for split, found in splits.items()},
    )
    context = make_context(root)
    save_images(root, grid, splits)
    return commit("stages.image.dataset", ImagesConfig(name=name, num_train=len(splits["train"])), context)


def _sha256(*tensors: Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
