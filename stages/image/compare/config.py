"""What defines a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.contract import Input, StageConfig

Count = Annotated[int, Field(ge=1)]


class Published(BaseModel):
    """Figures that others published for such images; they are shown as theirs and compared with nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """What was trained, such as DDPM."""
    source: str
    """Where it is published, such as arXiv 2006.11239, table 1."""
    images: str
    """What it learned from and was measured on, such as CIFAR-10."""
    bits_per_dim: float | None = None
    """Bits per dimension on the test images that they used."""
    inception_fd: float | None = None
    """Fréchet distance in the features of the Inception network (FID), to the train images, of 50,000 samples."""


class Config(StageConfig):
    """Families of image models on the same images, judged by the same extractors: tables, tests, pictures, a page."""

    produces: ClassVar[str] = "image_comparison"
    inputs: ClassVar[Mapping[str, Input]] = {
        "images": Input(
            kinds=("images",), help="the images that every model learned from, and those that samples are held against"
        ),
        "extractors": Input(
            kinds=("feature_extractors",), help="networks whose features the metrics use, made from those images"
        ),
        "models": Input(
            kinds=("image_model",), help="two models or more; equal settings are one model, its seeds repeats", many=True
        ),
        "judge": Input(
            kinds=("feature_extractors",),
            help="for stacked images: networks made from the grey ones, the first of which reads the class of each channel, so "
            "that modes can be counted",
            optional=True,
        ),
    }

    seed: int = 1337
    """Seed of the parts, of the bootstrap and of the random orders."""
    split: Literal["test", "validation"] = "test"
    """Split that samples are held against and bits are measured on; validation for trials that choose settings."""
    budget_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share by which counted training FLOPs of two models may differ for a verdict between them."""
    num_parts: Annotated[int, Field(ge=0)] = 20
    """Random parts of a model's samples, nine tenths of them, that tell how much a metric depends on the draw; used below three
    seeds, 0 for none."""
    num_resamples: Annotated[int, Field(ge=100)] = 10_000
    """Bootstrap draws of the test images for differences in bits per dimension."""
    columns: Count = 12
    """Images in a row of a sheet."""
    page_images: Count = 64
    """Images of each model and share of the budget on the interactive page."""
    published: tuple[Published, ...] = ()
    """Published figures to print beside ours."""

    @field_validator("num_parts")
    @classmethod
    def _has_a_spread(cls, value: int) -> int:
        if value == 1:
            raise ValueError("must be 0 or at least 2: one part has no spread")
        return value
