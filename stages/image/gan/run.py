"""Run the stage: play the game for a budget of counted FLOPs, then measure what the generator draws."""

from __future__ import annotations

from pipeline.contract import Context
from stages.common.images.stage import run_family
from stages.image.gan.config import Config
from stages.image.gan.model import GAN


def run(config: Config, context: Context) -> None:
    """Write the artifact of a generator and a discriminator; see `run_family`."""
    run_family(config, context, lambda grid: GAN(grid, config))
