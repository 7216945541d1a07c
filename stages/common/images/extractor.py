"""The network whose features the metrics of images stand on: a small convolutional classifier.

Legend: B images, C channels, H height, W width, K levels of the grid, F features.

No batch normalisation: an image's features depend on that image alone, in training and after it. Features are taken before
the last activation. Behind it a unit that never fires has variance 0 on real images, and one stray sample then blows the
Frechet distance up (a dead unit of a ReLU network made it 46 for real images against real images, in place of 0.45).
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

from stages.common.images.grid import centres

COARSEST = 4
"""Convolutions halve the sides until none is longer than this."""


class ExtractorNetwork(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Images on the grid, uint8 (B, C, H, W) -> logits (B, num_outputs).

    Args:
        channels, height, width: of the images, of any size.
        levels: K; the network sees the centre of each value's bin, in [-1, 1].
        num_outputs: classes that it tells apart; 0: it has no head, only features.
        num_features: F.
        first_width: feature maps of the first convolution; each halving of the sides doubles them.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        channels: int,
        height: int,
        width: int,
        levels: int,
        num_outputs: int,
        num_features: int,
        first_width: int,
    ) -> None:
        super().__init__()
        self.levels = levels
        layers: list[nn.Module] = [nn.Conv2d(channels, first_width, 3, padding=1), nn.SiLU()]
        maps = first_width
        while max(height, width) > COARSEST:
            layers += [nn.Conv2d(maps, 2 * maps, 3, stride=2, padding=1), nn.SiLU()]
            maps, height, width = 2 * maps, (height + 1) // 2, (width + 1) // 2
        layers += [nn.Conv2d(maps, maps, 3, padding=1), nn.SiLU(), nn.Flatten()]
        self.trunk = nn.Sequential(*layers)
        self.to_features = nn.Linear(maps * height * width, num_features)
        self.head = nn.Linear(num_features, num_outputs) if num_outputs else None

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate layer before its activation, float32 (B, F)."""
        features: Tensor = self.to_features(self.trunk(centres(images, self.levels)))
        return features

    def forward(self, images: Tensor) -> Tensor:
        assert self.head is not None, "a network without a head gives features only"
        logits: Tensor = self.head(functional.silu(self.features(images)))
        return logits


@torch.no_grad()
def initialise(network: ExtractorNetwork, generator: torch.Generator) -> None:
    """Draw the first weights so that every layer keeps the variance of its input (He et al., arXiv 1502.01852, eq. 10)."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:
            nn.init.zeros_(parameter)
