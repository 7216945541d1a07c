"""What defines stacked images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.contract import Input, StageConfig

Count = Annotated[int, Field(ge=16)]


class Config(StageConfig):
    """Grey images in; stacks of three, as the red, green and blue of one image, out: every triple of classes equally likely."""

    produces: ClassVar[str] = "images"
    inputs: ClassVar[Mapping[str, Input]] = {
        "images": Input(kinds=("images",), help="grey images with classes; a split is stacked from the same split of these"),
    }

    seed: int = 1337
    """Seed of the classes and of the images that are stacked."""
    num_train: Count = 20_000
    """Stacks to train on."""
    num_validation: Count = 2_000
    """Stacks for choices."""
    num_test: Count = 5_000
    """Stacks that samples are held against."""
