"""What defines the classifiers whose features the metrics stand on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.contract import Input, StageConfig

Count = Annotated[int, Field(ge=1)]


class Config(StageConfig):
    """Four small networks of one shape: two that name classes, one that says how far an image was turned, one untrained."""

    produces: ClassVar[str] = "feature_extractors"
    inputs: ClassVar[Mapping[str, Input]] = {
        "images": Input(kinds=("images",), help="images on one grid; the train split is learned from"),
    }
    shares_work: ClassVar[bool] = True

    seed: int = 1337
    """Seed of the first network's weights and order of images; the others count on from it."""
    num_steps: Count = 200
    """Updates of each trained network."""
    batch_size: Count = 128
    """Images in one step over all processes."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Largest learning rate of AdamW; it rises over a tenth of the steps and falls to zero along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Decoupled weight decay of AdamW."""
    num_features: Annotated[int, Field(ge=2)] = 64
    """Features of the penultimate layer; a Frechet distance needs more images than this."""
    first_width: Count = 16
    """Feature maps of the first convolution; each halving of the sides doubles them."""
    num_parts: Annotated[int, Field(ge=2)] = 10
    """Random parts of each faulty set, nine tenths of it, that the intervals of the panel of faults stand on."""
