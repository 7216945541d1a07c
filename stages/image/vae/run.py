"""Train a variational autoencoder within the budget."""

from __future__ import annotations

from pipeline.contract import Context
from stages.common.images.stage import run_family
from stages.image.vae.config import Config
from stages.image.vae.model import VAE


def run(config: Config, context: Context) -> None:
    """Write the artifact of a VAE: `model/`, samples and means, IWAE bounds, figures, card and section."""
    run_family(config, context, lambda grid: VAE(grid, config))
