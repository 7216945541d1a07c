"""The `groundup:` block of a data card for images: where the data comes from, and how it comes onto the grid."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.common.packages import Package, Sha256

_STRICT = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
Fraction = Annotated[float, Field(gt=0.0, le=0.5)]


class Hub(BaseModel):
    """A dataset of images on the Hugging Face Hub, streamed."""

    model_config = _STRICT
    repo: str
    """`owner/name`."""
    revision: str = "main"
    """Branch, tag or commit; the engine resolves it to a commit, which enters the fingerprint."""
    config: str | None = None
    """Name of its configuration (subset)."""
    split: str = "train"
    """Which of its splits to read, such as `train+test`; ours are made by content hash."""
    image_column: str = "image"
    """Column that holds the image."""
    label_column: str | None = "label"
    """Column that holds the label; null: images without labels."""


class Sklearn(BaseModel):
    """A dataset that comes inside scikit-learn."""

    model_config = _STRICT
    dataset: Literal["digits"]
    """Its name there."""
    sha256: Sha256
    """Hash of all pixels (uint8) and then all labels (int64, little end first)."""


class SourceEntry(BaseModel):
    """One entry of `sources`: exactly one kind."""

    model_config = _STRICT
    package: Package | None = None
    hub: Hub | None = None
    sklearn: Sklearn | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len([kind for kind in (self.package, self.hub, self.sklearn) if kind is not None]) != 1:
            raise ValueError("a source is one of package, hub, sklearn")
        return self


class Treatments(BaseModel):
    """What to do about images that break a rule; the recipe's `on_...` keys go before it."""

    model_config = _STRICT
    wrong_size: Literal["refuse", "resize", "drop"] = "refuse"
    wrong_mode: Literal["refuse", "convert", "drop"] = "refuse"
    corrupt: Literal["refuse", "drop"] = "refuse"
    bad_value: Literal["refuse", "drop"] = "refuse"
    constant: Literal["refuse", "drop", "keep"] = "refuse"
    missing_label: Literal["refuse", "drop"] = "refuse"
    conflicting_label: Literal["refuse", "drop"] = "refuse"


class ImageCard(BaseModel):
    """The whole block."""

    model_config = _STRICT
    sources: list[SourceEntry] = Field(min_length=1)
    """In order of preference; the first that can be had is read."""
    reader: Literal["idx", "mnist-json", "emoji"] | None = None
    """How images are taken out of the members of a package; the other kinds of source need none."""
    classes: list[str] = []
    """Names of the labels 0, 1, ..., where the source has numbers only."""
    size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Height and width of an image as it is read, in pixels; null: those of the first."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for red, green and blue; null: those of the first image."""
    levels: Annotated[int, Field(ge=2, le=256)] | None = None
    """K of the grid; null: that of the source."""
    pad: Annotated[int, Field(ge=0, le=64)] = 0
    """Rows and columns of level 0 put around an image, on each side, in pixels."""
    pool: Annotated[int, Field(ge=1, le=64)] = 1
    """After padding, each square of this side becomes its mean, rounded, a half upwards."""
    validation_fraction: Fraction = 0.1
    """Part of the images that goes into the validation split."""
    test_fraction: Fraction = 0.1
    """Part of the images that goes into the test split."""
    on: Treatments = Treatments()
    """What to do about images that break a rule."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reader is None and any(entry.package is not None for entry in self.sources):
            raise ValueError("a package needs a 'reader': idx, mnist-json or emoji")
        if self.reader == "emoji" and self.size is None:
            raise ValueError("the reader emoji draws its images and needs a 'size'")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name occurs twice")
        return self
