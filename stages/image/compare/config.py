"""What defines a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from pipeline.contract import Input, StageConfig

Count = Annotated[int, Field(ge=1)]


class Config(StageConfig):
    """Families of image models on the same images, judged by the same extractors: tables, tests, pictures, a page."""

    produces: ClassVar[str] = "image_comparison"
    inputs: ClassVar[Mapping[str, Input]] = {
        "images": Input(
            kinds=("images",), help="the images that every model learned from; test is what samples are held against"
        ),
        "extractors": Input(
            kinds=("feature_extractors",), help="networks whose features the metrics use, made from those images"
        ),
        "models": Input(
            kinds=("image_model",), help="two models or more; equal settings are one model, its seeds repeats", many=True
        ),
    }

    seed: int = 1337
    """Seed of the halves, of the bootstrap and of the random orders."""
    budget_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share by which counted training FLOPs of two models may differ for a verdict between them."""
    num_halves: Annotated[int, Field(ge=0)] = 20
    """Random halves of a model's samples that tell how much a metric depends on the draw; used below three seeds, 0 for none."""
    num_resamples: Annotated[int, Field(ge=100)] = 10_000
    """Bootstrap draws of the test images for differences in bits per dimension."""
    columns: Count = 12
    """Images in a row of a sheet."""
    page_images: Count = 64
    """Images of each model and share of the budget on the interactive page."""

    @field_validator("num_halves")
    @classmethod
    def _has_a_spread(cls, value: int) -> int:
        if value == 1:
            raise ValueError("must be 0 or at least 2: one half has no spread")
        return value
