"""Quarter turns of images: what a self-supervised extractor learns to tell apart (Gidaris et al., arXiv 1803.07728)."""

from __future__ import annotations

import torch
from torch import Tensor


def turns_of(height: int, width: int) -> tuple[int, ...]:
    """Return the quarter turns that keep the shape: four for a square image, none and half a circle for others."""
    return (0, 1, 2, 3) if height == width else (0, 2)


def all_turns(images: Tensor, turns: tuple[int, ...]) -> Tensor:
    """Return images (B, C, H, W) turned in every way, (turns, B, C, H, W)."""
    return torch.stack([images.rot90(turn, dims=(2, 3)) for turn in turns])
