"""Train the velocity field, draw samples, measure bits per dimension, write the artifact."""

from __future__ import annotations

from pipeline.contract import Context
from stages.common.images.stage import run_family
from stages.image.flow_matching.config import Config
from stages.image.flow_matching.model import FlowMatching


def run(config: Config, context: Context) -> None:
    """Write the artifact of kind `image_model`."""
    run_family(config, context, lambda grid: FlowMatching(grid, config))
