"""What the dataset stage can be told; the data card gives the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.contract import CardUse, Input, LocalFiles, Source, StageConfig

Fraction = Annotated[float, Field(gt=0.0, le=0.5)]
Count = Annotated[int, Field(ge=1)]
RefuseDrop = Literal["refuse", "drop"]


class Config(StageConfig):
    """Images in; the same images on one grid of integers, in the splits train, validation and test, out.

    Where a field is null, the data card decides, and where the card says nothing the default that its sentence names.
    """

    produces: ClassVar[str] = "images"
    inputs: ClassVar[Mapping[str, Input]] = {}
    locations: ClassVar[frozenset[str]] = frozenset({"files"})

    card: str | None = None
    """Name of a data card in data_cards/, such as digits. Ignored when `files` is given."""
    files: str | list[str] | None = None
    """Your own images (PNG, JPEG, BMP, GIF, WebP, TIFF, PNM), which need no card and go before one: folders, files or glob
    patterns. In a folder the names of its sub-folders become class labels; files and patterns give images without labels."""
    license: str = "not stated"
    """Licence of your own `files`, carried into every artifact made from them; a card brings its own."""

    size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Height and width that an image must have, in pixels, before a card pads and pools it. Null: the card's, else those of the
    first image by name."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for red, green and blue. Null: the card's, else as many as the first image by name has."""
    levels: Annotated[int, Field(ge=2, le=256)] | None = None
    """K: values become whole numbers from 0 to K - 1, floor(K * value / K of the source). Null: the card's, else the source's
    (256 for image files)."""

    on_wrong_size: Literal["refuse", "resize", "drop"] | None = None
    """An image of another size: refuse it, resize (cut to the middle, then scaled by a triangle filter), or drop it. Null: the
    card's, else refuse."""
    on_wrong_mode: Literal["refuse", "convert", "drop"] | None = None
    """A palette, transparency, 16 bits, CMYK, several frames, or another number of channels: refuse, convert (over white; the
    high byte; grey = 0.299 R + 0.587 G + 0.114 B; the first frame), or drop. Null: the card's, else refuse."""
    on_corrupt: RefuseDrop | None = None
    """A file that is no image, is damaged or cut off, or has more than 2^26 pixels: refuse or drop it. Null: the card's, else
    refuse."""
    on_bad_value: RefuseDrop | None = None
    """Values that are NaN, no whole numbers, or outside the source's levels: refuse or drop the image. Null: the card's, else
    refuse."""
    on_constant: Literal["refuse", "drop", "keep"] | None = None
    """An image of one colour: refuse, drop or keep it. Null: the card's, else refuse."""
    on_missing_label: RefuseDrop | None = None
    """An image without a label among images that have one: refuse or drop it. Null: the card's, else refuse."""
    on_conflicting_label: RefuseDrop | None = None
    """Equal images with different labels: refuse them, or drop them all. Null: the card's, else refuse."""

    max_images: Count | None = None
    """Keep at most this many images, chosen by content hash among all; a smaller number keeps a part of those. Null: keep all."""
    validation_fraction: Fraction | None = None
    """Part of the images that goes into the validation split. Null: the card's, else 0.1."""
    test_fraction: Fraction | None = None
    """Part of the images that goes into the test split. Null: the card's, else 0.1."""
    min_split_images: Count = 16
    """A split with fewer images than this is refused."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.files and self.card is None:
            raise ValueError("nothing to read: give 'card' (a data card's name) or 'files' (your own images)")
        return self

    @property
    def patterns(self) -> tuple[str, ...]:
        """The user's own files as written, or nothing when the card is read."""
        return (self.files,) if isinstance(self.files, str) else tuple(self.files or ())

    def sources(self) -> list[Source]:
        """Own files go before the card; their names count, as those of folders are labels."""
        if self.files:
            return [LocalFiles(self.patterns, named=True)]
        assert self.card is not None
        return [CardUse(self.card)]
