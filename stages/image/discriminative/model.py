"""The discriminative side: a network for p(c | x), trained by the cross-entropy of the class.

Legend: B images, C channels, H height, W width, K classes, F features.

It may spend all of its budget on where the classes part, and needs no word on what an image looks like; a generative model
spends most of it on that. It takes no more images than those that have a label.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.common.images.extractor import ExtractorNetwork, initialise
from stages.common.images.family import Optimisation, Player, Trainable
from stages.common.images.grid import Grid
from stages.common.images.noise import BatchNoise, seeded_generator
from stages.common.images.parts import Parts
from stages.image.discriminative.config import Config

IMAGES_AT_ONCE = 1000


class ClassPlayer(Player):
    """Minimises -ln p(c | x), mean over images, in nats."""

    def __init__(self, network: ExtractorNetwork, dropout: float) -> None:
        super().__init__()
        self.network = network
        self._dropout = dropout

    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:
        """See `Player`; `accuracy` is that of the batch."""
        features = functional.silu(self.network.features(images))
        if self._dropout:  # drawn from the noise of the step, so that a resumed training drops the same features
            features = features * (noise.uniform(features.shape[1]) >= self._dropout) / (1 - self._dropout)
        logits = self.network.head(features)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        return {"loss": functional.cross_entropy(logits, labels), "accuracy": accuracy}


class Discriminative(Trainable):
    """A convolutional classifier on one grid; the network is that of the feature extractors."""

    name: ClassVar[str] = "cnn"

    def __init__(self, grid: Grid, config: Config) -> None:
        self.grid, self._config = grid, config
        self.network = ExtractorNetwork(
            channels=grid.channels,
            height=grid.height,
            width=grid.width,
            levels=grid.levels,
            num_outputs=len(grid.classes),
            num_features=config.num_features,
            first_width=config.first_width,
        )
        initialise(self.network, seeded_generator(config.seed))

    def players(self) -> dict[str, Player]:
        return {"classes": ClassPlayer(self.network, self._config.dropout)}

    def optimisation(self) -> dict[str, Optimisation]:
        return {"classes": Optimisation.of(self._config)}

    def averaged(self) -> dict[str, nn.Module]:
        return {"network": self.network}

    @torch.no_grad()
    def log_probs(self, images: Tensor) -> Tensor:
        """Return ln p(c | x), float64 (B, K), of images uint8 (B, C, H, W)."""
        logits = Parts(IMAGES_AT_ONCE)(lambda part: self.network(part.to(self.network.device)).double().cpu(), images)
        return logits.log_softmax(dim=1)

    def save(self, directory: Path) -> None:
        """Save the network in diffusers' form under `directory`."""
        self.network.save_pretrained(directory)
