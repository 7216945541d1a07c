"""Train the denoiser, draw samples, measure the bound on bits per dimension, write the artifact."""

from __future__ import annotations

from pipeline.contract import Context
from stages.common.images.stage import run_family
from stages.image.diffusion.config import Config
from stages.image.diffusion.model import Diffusion


def run(config: Config, context: Context) -> None:
    """Write the artifact of kind `image_model`."""
    run_family(config, context, lambda grid: Diffusion(grid, config))
