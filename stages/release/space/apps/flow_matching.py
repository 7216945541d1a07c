"""Images from flow matching: noise is the latent, Heun's method follows the flow from noise to image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor


class Sampler:
    """Loads the U-Net in `folder`."""

    has_latents = True
    has_units = False  # one for each value of the image: a slider for one of them shows nothing

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.network: Any = UNet2DModel.from_pretrained(folder / "unet")  # type: ignore[no-untyped-call, unused-ignore]
        self.network.eval()
        self.levels: int = settings["levels"]
        self.num_steps: int = settings["num_steps"]
        self.patch: int = settings["patch"]

    def latents(self, number: int, generator: torch.Generator) -> Tensor:
        """Return noise, float32 (N, C·patch², H/patch, W/patch)."""
        return torch.randn(number, self.network.config.in_channels, *self.network.config.sample_size, generator=generator)

    def images(self, latents: Tensor) -> Tensor:
        """Return the images at the end of the flow, uint8 (N, C, H, W) in levels."""
        x: Tensor = latents
        step = 1 / self.num_steps
        for i in range(self.num_steps):  # sigma = 1 is noise, sigma = 0 an image; the network predicts dx/dsigma
            sigma = 1 - i * step
            here = self.network(x, torch.tensor(1000 * sigma)).sample
            there = self.network(x - step * here, torch.tensor(1000 * (sigma - step))).sample
            x = x - step / 2 * (here + there)
        x = torch.nn.functional.pixel_shuffle(x, self.patch)
        return ((x + 1) * self.levels / 2).floor().clamp(0, self.levels - 1).to(torch.uint8)

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Return `number` samples of the model."""
        return self.images(self.latents(number, generator))
