"""What the networks learn: the class of an image, or how far it was turned.

Legend: B images, C channels, H height, W width.

Turning needs no labels (Gidaris et al., arXiv 1803.07728): to tell an upright image from a turned one, a network must know
what is in it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.common.images.extractor import ExtractorNetwork
from stages.common.images.turns import all_turns


class ClassObjective(nn.Module):
    """Cross-entropy of the class, nats."""

    def __init__(self, network: ExtractorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor, places: Tensor) -> Tensor:  # noqa: ARG002 - one signature for both
        """Return the mean loss of images (B, C, H, W) with `labels` int64 (B,)."""
        return functional.cross_entropy(self.network(images), labels)


class TurnObjective(nn.Module):
    """Cross-entropy of the turn, nats; an image is turned as its place in the batch says, and batches are drawn anew."""

    def __init__(self, network: ExtractorNetwork, turns: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.turns = network, turns

    def forward(self, images: Tensor, labels: Tensor, places: Tensor) -> Tensor:  # noqa: ARG002
        """Return the mean loss of images (B, C, H, W) at `places` int64 (B,) of the batch; `labels` are not looked at."""
        targets = places % len(self.turns)
        turned = all_turns(images, self.turns)[targets, torch.arange(len(images), device=images.device)]
        return functional.cross_entropy(self.network(turned), targets)
