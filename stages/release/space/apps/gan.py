"""Images from a GAN's generator: normal latents, one call of the network."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.common.images.grid import quantise


class Sampler:
    """Loads the generator in `folder`; `settings` names the module and class of it."""

    has_latents = True
    has_units = True

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        module, name = settings["network"]
        kind = getattr(importlib.import_module(module), name)
        self.network = kind.from_pretrained(folder / "generator").eval()
        self.levels = settings["levels"]

    def latents(self, number: int, generator: torch.Generator) -> Tensor:
        """Return `number` normal latents, float32 (N, Z)."""
        return torch.randn(number, self.network.config.latent_size, generator=generator)

    def images(self, latents: Tensor) -> Tensor:
        """Return the images of latents, uint8 (N, C, H, W) in levels."""
        return quantise(self.network(latents).float(), self.levels)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Return `number` samples of the model."""
        return self.images(self.latents(number, generator))
