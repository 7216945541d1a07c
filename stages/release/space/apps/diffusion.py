"""Images from a diffusion model by the ancestral sampler of diffusers; it draws noise at each step, so it has no latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline
from torch import Tensor


class Sampler:
    """Loads the pipeline in `folder`."""

    has_latents = False
    has_units = False

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.pipeline: Any = DDPMPipeline.from_pretrained(folder)  # type: ignore[no-untyped-call, unused-ignore]
        self.pipeline.set_progress_bar_config(disable=True)
        self.levels: int = settings["levels"]
        self.num_steps: int = settings["num_steps"]
        self.patch: int = settings["patch"]

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Return `number` samples of the model, uint8 (N, C, H, W) in levels."""
        made: Tensor = self.pipeline(
            batch_size=number, generator=generator, num_inference_steps=self.num_steps, output_type="pt"
        ).images
        made = torch.nn.functional.pixel_shuffle(made, self.patch)
        return (made * self.levels).floor().clamp(0, self.levels - 1).to(torch.uint8)
