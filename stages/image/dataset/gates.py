"""Every image passes these gates onto the grid: what breaks a rule is counted, named, and refused, changed or dropped.

Legend: H height, W width, C channels, K levels.

file -> upright -> grey or colour -> (C of the grid) -> size -> padded and pooled -> K levels -> more than one level
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import DataError
from stages.image.dataset.decoding import NoScale, Unreadable, decode, resized, to_array, upright, with_channels
from stages.image.dataset.items import Encoded, Item, Pixels

KINDS: dict[str, str] = {
    "corrupt": "files that are no image, or damaged",
    "wrong_mode": "images that are not plain 8-bit grey or colour, or have another number of channels",
    "bad_value": "values that are no levels of the source",
    "wrong_size": "images of another size",
    "constant": "images of one colour",
    "missing_label": "images without a label among images that have one",
    "conflicting_label": "equal images with different labels",
    "orientation": "images that their EXIF tag turns",
}
"""Kind of finding -> what it is, for people."""

CHOICES: dict[str, str] = {
    "corrupt": "drop",
    "wrong_mode": "convert or drop",
    "bad_value": "drop",
    "wrong_size": "resize or drop",
    "constant": "drop or keep",
    "missing_label": "drop",
    "conflicting_label": "drop",
}
"""Kind of finding -> what may be done instead of refusing."""

EXAMPLES = 5
MOST_REFUSED = 1000
"""Refused images after which reading stops: the message is clear by then."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How images come onto the grid.

    Attributes:
        actions: kind of finding -> refuse, drop, resize, convert or keep.
        source_levels: levels of the source.
        levels: K of the grid, at most those of the source.
        size: height and width as read; None: those of the first image.
        channels: C; None: that of the first image.
        pad, pool: rows of level 0 around, then the side of the squares that are averaged.
        labelled: images are expected to have labels.
    """

    actions: Mapping[str, str]
    source_levels: int
    levels: int
    size: int | None = None
    channels: int | None = None
    pad: int = 0
    pool: int = 1
    labelled: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """An image on the grid, uint8 (C, H, W), with its place and label."""

    place: str
    image: np.ndarray = field(repr=False)
    label: str | None


class Gates:
    """Takes items in, gives images on the grid out, remembers what was found.

    Attributes:
        classes: labels that came in, also those of images that were dropped.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.classes: set[str] = set()
        self._size = None if policy.size is None else (policy.size, policy.size)
        self._channels = policy.channels

    def samples(self, items: Iterator[Item]) -> Iterator[Sample]:
        """Yield the images that pass; call `refuse` after the last."""
        for item in items:
            if item.label is not None:
                self.classes.add(item.label)
            values = self._values(item)
            values = None if values is None else self._sized(item.place, values)
            if values is None:
                continue
            if item.label is None and self.policy.labelled:
                self.found("missing_label", item.place, "no label")
                continue
            image = to_levels(pooled(values, self.policy.pad, self.policy.pool), self.policy.source_levels, self.policy.levels)
            if image.min() == image.max() and self.found("constant", item.place, f"level {image.min()} only") != "keep":
                continue
            yield Sample(item.place, np.ascontiguousarray(image.transpose(2, 0, 1)), item.label)

    def _values(self, item: Item) -> np.ndarray | None:
        """Return the levels of the source, uint8 (H, W, C) with the C of the grid; None when the image is left out."""
        values = self._decoded(item) if isinstance(item, Encoded) else self._checked(item)
        if values is None:
            return None
        self._channels = self._channels or values.shape[2]
        if values.shape[2] != self._channels:
            detail = f"{values.shape[2]} channel(s), the grid has {self._channels}"
            if self.found("wrong_mode", item.place, detail) != "convert":
                return None
        return with_channels(values, self._channels)

    def _decoded(self, item: Encoded) -> np.ndarray | None:
        try:
            decoded = decode(item.read())
            image, turned = upright(decoded.image)
            if turned:
                self.found("orientation", item.place, "turned as its EXIF tag says")
            if decoded.oddity and self.found("wrong_mode", item.place, decoded.oddity) != "convert":
                return None
            return to_array(image)
        except Unreadable as error:
            self.found("corrupt", item.place, str(error))
        except NoScale as error:
            self.found("bad_value", item.place, str(error))
        return None

    def _checked(self, item: Pixels) -> np.ndarray | None:
        problem = value_problem(item.values, self.policy.source_levels)
        if problem:
            self.found("bad_value", item.place, problem)
            return None
        values = item.values.astype(np.uint8)
        return values if values.ndim == 3 else values[..., None]

    def _sized(self, place: str, values: np.ndarray) -> np.ndarray | None:
        if self._size is None:
            self._size = values.shape[:2]
        if values.shape[:2] == self._size:
            return values
        (height, width), wanted = values.shape[:2], "{} x {}".format(*self._size)
        if self.found("wrong_size", place, f"{height} x {width} pixels (height x width), the grid has {wanted}") != "resize":
            return None
        return resized(values, *self._size)

    def found(self, kind: str, place: str, detail: str) -> str:
        """Count a finding, keep the first few; return what is to be done.

        Raises:
            DataError: so many images are refused that reading on would tell nothing new.
        """
        action = "convert" if kind == "orientation" else self.policy.actions[kind]
        self.counts[kind, action] += 1
        known = self.examples.setdefault(kind, [])
        if len(known) < EXAMPLES:
            known.append(f"{place}: {detail}")
        if action == "refuse" and sum(count for (_, what), count in self.counts.items() if what == "refuse") >= MOST_REFUSED:
            self.refuse()
        return action

    def refuse(self) -> None:
        """Raise DataError with counts and examples, if anything was found that the policy refuses."""
        lines = []
        for (kind, action), count in self.counts.items():
            if action == "refuse":
                lines.append(f"{count:,} x {KINDS[kind]} (instead of refusing: on_{kind}={CHOICES[kind]}):")
                lines += [f"    {example}" for example in self.examples[kind]]
        if lines:
            raise DataError("the data has images that are refused:\n  " + "\n  ".join(lines))

    @property
    def num_dropped(self) -> int:
        """Findings that left an image out."""
        return sum(count for (_, action), count in self.counts.items() if action == "drop")

    def table(self) -> list[dict[str, Any]]:
        """Return all findings for statistics and report."""
        rows = sorted(self.counts.items())
        return [
            {"kind": kind, "action": action, "count": count, "examples": self.examples[kind]} for (kind, action), count in rows
        ]


def value_problem(values: np.ndarray, levels: int) -> str:
    """Return what keeps `values` from being whole numbers from 0 to K - 1 in an image; empty when nothing does."""
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3)) or not values.size:
        return f"an array of shape {values.shape}, no image (H, W), (H, W, 1) or (H, W, 3)"
    if values.dtype.kind not in "buif":
        return f"values of type {values.dtype}"
    wrong = ~np.isfinite(values)
    what = "not finite"
    if not wrong.any():
        wrong, what = values != np.floor(values), "no whole number"
    if not wrong.any():
        wrong, what = (values < 0) | (values > levels - 1), f"outside 0 ... {levels - 1}"
    if not wrong.any():
        return ""
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return f"{int(wrong.sum()):,} of {values.size:,} values are {what}; the first is {values[place]} at {place}"


def pooled(values: np.ndarray, pad: int, pool: int) -> np.ndarray:
    """Return uint8 (H, W, C) with `pad` rows and columns of level 0 around, then the mean of each square of side `pool`.

    Means are rounded in whole numbers, a half upwards: (sum + n // 2) // n of n values.

    Raises:
        DataError: the padded sides are not multiples of `pool`.
    """
    if pad:
        values = np.pad(values, ((pad, pad), (pad, pad), (0, 0)))
    if pool == 1:
        return values
    height, width, channels = values.shape
    if height % pool or width % pool:
        raise DataError(f"images of {height} x {width} pixels (padding included) cannot be pooled by {pool}; set another 'size'")
    sums = values.reshape(height // pool, pool, width // pool, pool, channels).sum(axis=(1, 3), dtype=np.int64)
    return ((sums + pool * pool // 2) // (pool * pool)).astype(np.uint8)


def to_levels(values: np.ndarray, source_levels: int, levels: int) -> np.ndarray:
    """Return floor(K x / K of the source), uint8: equal parts of the source's levels become one level."""
    if levels == source_levels:
        return values
    return (values.astype(np.int64) * levels // source_levels).astype(np.uint8)
