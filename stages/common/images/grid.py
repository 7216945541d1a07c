"""The data grid that every family shares: images are integers x in {0, ..., K-1}, and everything is measured on them.

Legend: B images, C channels, H height, W width, K levels, D = C·H·W values.

A continuous model sees the dequantised image y = 2 (x + u) / K - 1 in [-1, 1) with u ~ U[0, 1) drawn anew at each look:
then the expected log density of y bounds the log probability of x from below (Theis et al., arXiv 1511.01844, eq. 5),
    log2 P(x) >= E_u[log2 p(y)] + D·log2(2 / K),
where the last term is the volume of one bin. Noise drawn once would be learnt by heart. Samples of EVERY model go back to
the grid through the same `quantise` before anything is measured.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.contract import write_json
from pipeline.errors import DataError

GRID, IMAGES = "grid.json", "images.safetensors"
SPLITS = ("train", "validation", "test")
MAX_NAMED = 20
"""Names of classes in a comment."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a set of images looks like.

    Attributes:
        name: of the data, such as the card's.
        license: of the data.
        levels: K, from 2 to 256.
        channels, height, width: C, H, W.
        classes: names of the labels 0, 1, ...; empty when the images have none.
        sizes: images in each split.
        sha256: of the pixels and labels of each split.
    """

    name: str
    license: str
    levels: int
    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    sizes: dict[str, int]
    sha256: dict[str, str]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.height, self.width)

    @property
    def num_dims(self) -> int:
        """D = C·H·W, the values of one image."""
        return self.channels * self.height * self.width

    @property
    def bin_log2_volume(self) -> float:
        """log2 of the volume of one bin of all D values: D·log2(2 / K), in bits."""
        return self.num_dims * math.log2(2 / self.levels)


@dataclass(frozen=True)
class Split:
    """Images uint8 (B, C, H, W) on the grid, and labels int64 (B,), -1 where there is none."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)


def sha256_of(split: Split) -> str:
    """Return the sha256 of the pixels and then the labels (int64, little end first)."""
    return hashlib.sha256(split.images.numpy().tobytes() + split.labels.numpy().astype("<i8").tobytes()).hexdigest()


def save_images(directory: Path, grid: Grid, splits: dict[str, Split]) -> None:
    """Write `grid.json` and `images.safetensors` into an artifact."""
    tensors = {}
    for name in SPLITS:
        tensors[f"{name}.images"] = splits[name].images.contiguous()
        tensors[f"{name}.labels"] = splits[name].labels.contiguous()
    save_file(tensors, directory / IMAGES)
    write_json(directory / GRID, asdict(grid))


def load_grid(artifact: Artifact) -> Grid:
    """Return the grid of an artifact of kind `images` (or of one that carries a copy)."""
    return read_grid(artifact.path)


def read_grid(directory: Path) -> Grid:
    """Return the grid whose `grid.json` lies in `directory`."""
    values = json.loads((directory / GRID).read_text(encoding="utf-8"))
    return Grid(**values | {"classes": tuple(values["classes"])})


def load_split(artifact: Artifact, name: str) -> Split:
    """Return one split.

    Raises:
        DataError: the artifact has no such split.
    """
    tensors = load_file(artifact.path / IMAGES)
    if f"{name}.images" not in tensors:
        raise DataError(f"split '{name}' is not in {artifact.path.name}; it has {', '.join(SPLITS)}")
    return Split(tensors[f"{name}.images"], tensors[f"{name}.labels"])


def in_comment(classes: Sequence[str]) -> str:
    """Return the names of classes for a comment in code that is shown and run: they come from folders and may hold anything."""
    names = [re.sub(r"[^\w .()/-]", "_", name) for name in classes[:MAX_NAMED]]
    return ", ".join([*names, *(["..."] if len(classes) > MAX_NAMED else [])])


def other_size(side: int, factor: int) -> str:
    """Return advice for images whose `side`, pixels, is no multiple of `factor`: a command that makes it one."""
    size = max(factor, side - side % factor)
    return f"bring the images to another size in the dataset stage (size={size} on_wrong_size=resize)"


def dequantise(images: Tensor, levels: int, noise: Tensor) -> Tensor:
    """Return 2 (x + u) / K - 1; `noise` is u in [0, 1), float, of the shape of `images`."""
    return (images.to(noise.dtype) + noise) * (2 / levels) - 1


def centres(images: Tensor, levels: int) -> Tensor:
    """Return the centre of each value's bin, 2 (x + 1/2) / K - 1, float32."""
    return (images.float() + 0.5) * (2 / levels) - 1


def quantise(values: Tensor, levels: int) -> Tensor:
    """Return the level, uint8, of each float value: floor((y + 1)·K / 2), cut to 0 ... K-1."""
    return ((values + 1) * (levels / 2)).floor().clamp_(0, levels - 1).to(torch.uint8)
