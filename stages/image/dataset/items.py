"""What a source gives: images as files or as arrays, each with its place and its label.

Legend: H height, W width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image in a file format.

    Attributes:
        place: name of the file or the row, for people.
        read: gives the bytes.
        label: name of its class, None where there is none.
    """

    place: str
    read: Callable[[], bytes] = field(repr=False)
    label: str | None


@dataclass(frozen=True, slots=True)
class Pixels:
    """An image as an array (H, W) or (H, W, C) of any number type, meant to hold whole numbers from 0 to K - 1."""

    place: str
    values: np.ndarray = field(repr=False)
    label: str | None


Item = Encoded | Pixels


@dataclass(frozen=True)
class Origin:
    """An opened source.

    Attributes:
        name: which source is read, for people.
        items: its images in an order that does not depend on where they lie.
        levels: K of the source: its values run from 0 to K - 1.
        classes: names of the classes in their order; empty when the images have none; None: those that occur.
    """

    name: str
    items: Iterator[Item]
    levels: int = 256
    classes: tuple[str, ...] | None = None
