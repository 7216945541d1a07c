"""Train a normalizing flow within the budget."""

from __future__ import annotations

from pipeline.contract import Context
from stages.common.images.stage import run_family
from stages.image.flow.config import Config
from stages.image.flow.model import Flow


def run(config: Config, context: Context) -> None:
    """Write the artifact of a flow: `model/`, samples, bits per dimension, figures, card and section."""
    run_family(config, context, lambda grid: Flow(grid, config))
