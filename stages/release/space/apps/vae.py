"""Images from a VAE: latents from its prior, then a draw from p(x | z); on a walk the mean, which does not flicker."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Sampler:
    """Loads the autoencoder in `folder`; `settings` names its module and class, and the module of p(x | z)."""

    has_latents = True
    has_units = True

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        module, name = settings["network"]
        self.network = getattr(importlib.import_module(module), name).from_pretrained(folder).eval()
        self.shape = (settings["channels"], settings["height"], settings["width"])
        pixels = importlib.import_module(settings["pixels"])
        self.pixels = pixels.pixel_distribution(settings["levels"], settings["channels"])
        widths = self.network.config.get("block_out_channels")  # of AutoencoderKL; the small one has latents without a place
        factor = 2 ** (len(widths) - 1) if widths else None
        places = (settings["height"] // factor, settings["width"] // factor) if factor else (1, 1)
        self.latent_shape = (self.network.config["latent_channels"], *places)

    def latents(self, number: int, generator: torch.Generator) -> Tensor:
        """Return `number` latents drawn from the prior, float32 (N, Z, h, w)."""
        normal = torch.randn(number, *self.latent_shape, generator=generator)
        return self.network.prior.draw(normal, generator) if hasattr(self.network, "prior") else normal

    def images(self, latents: Tensor) -> Tensor:
        """Return the means of the images of latents, uint8 (N, C, H, W) in levels."""
        means: Tensor = self.pixels.mean(self.network.decode(latents).sample.float())
        return means.round().to(torch.uint8)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Return `number` samples of the model."""
        latents = self.latents(number, generator)
        uniform = torch.rand(number, *self.shape, generator=generator)
        images: Tensor = self.pixels.sample(self.network.decode(latents).sample.float(), uniform)
        return images
