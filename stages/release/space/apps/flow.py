"""Images from a normalising flow: draws of its base, taken back through the transforms.

The base is uniform; latents are given here as the normal values of the same quantiles, so that a walk may follow an arc.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.common.images.grid import quantise

TAIL = 1e-6
"""Draws are kept this far from 0 and 1, where the normal value is infinite."""


class Sampler:
    """Loads the flow in `folder`; `settings` names the module and class of it."""

    has_latents = True
    has_units = False  # one for each value of the image: a slider for one of them shows nothing

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        module, name = settings["network"]
        self.network = getattr(importlib.import_module(module), name).from_pretrained(folder / "flow").eval()
        self.levels = settings["levels"]

    def latents(self, number: int, generator: torch.Generator) -> Tensor:
        """Return `number` normal latents, float32 (N, C, H, W)."""
        uniform = torch.rand(number, *self.network.latent_shape, generator=generator).double()
        normal: Tensor = torch.special.ndtri(uniform.clamp(TAIL, 1 - TAIL))
        return normal.float()

    def images(self, latents: Tensor) -> Tensor:
        """Return the images of latents, uint8 (N, C, H, W) in levels."""
        uniform = torch.special.ndtr(latents.double()).float()
        return quantise(self.network.inverse(uniform).float(), self.levels)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Return `number` samples of the model."""
        uniform = torch.rand(number, *self.network.latent_shape, generator=generator)
        return quantise(self.network.inverse(uniform).float(), self.levels)
