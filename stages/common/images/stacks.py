"""Stacked images: what they are made of, and which of all triples of classes a stack shows.

Legend: N stacks, C = 3 channels, G classes of the grey images that were stacked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.artifact import Artifact

STACKED, CLASSES = "stacked.json", "stacks.safetensors"
"""What was stacked; split -> class of each channel, int64 (N, C)."""
CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """What `stacked.json` holds.

    Attributes:
        name: of the images that were stacked.
        classes: their classes.
        levels: K of their grid.
        sha256: of the pixels and labels of each of their splits.
    """

    name: str
    classes: Sequence[str]
    levels: int
    sha256: dict[str, str]

    @property
    def num_modes(self) -> int:
        """G³, all of them equally likely."""
        return int(len(self.classes) ** CHANNELS)

    def modes(self, classes: Tensor) -> Tensor:
        """Return the mode of each stack, int64 (N,) from 0 to G³ - 1, of its classes, int64 (N, C)."""
        return classes @ torch.tensor([len(self.classes) ** power for power in reversed(range(CHANNELS))])

    def to_json(self) -> dict[str, Any]:
        """Return what `stacked.json` holds."""
        return asdict(self)


def load_stacked(images: Artifact) -> Stacked | None:
    """Return what an artifact of kind `images` was stacked from; None where it is no stack."""
    path = images.path / STACKED
    return Stacked(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
