"""What splits must have so that something can be learnt from them and measured on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from pipeline.errors import DataError
from stages.common.images.grid import SPLITS, Split

RISK = 1e-3
"""Chance that as many images as a message asks for are still too few."""
_RISK_IN_DEVIATIONS = 3.09  # of a normal distribution: its upper tail beyond this is RISK


def check_number(
    total: int, classes: Sequence[str], *, fractions: Mapping[str, float], least: int, num_copies: int, num_dropped: int
) -> None:
    """Refuse so few images that there is nothing to split; for the arguments see `check`.

    Raises:
        DataError: no image, one image, or fewer images than classes.
    """
    enough = images_needed(fractions, len(classes), least)
    without = _left_out(num_copies, num_dropped)
    if total <= 1:
        found = "all images are equal" if total and num_copies else f"there is {'one image' if total else 'no image'}"
        raise DataError(f"{found}{without}: nothing can be learnt from that; give about {enough:,} different images")
    if total < len(classes):
        raise DataError(f"{total:,} images for {len(classes):,} classes{without}: give about {enough:,} images")


def check(
    splits: Mapping[str, Split],
    classes: Sequence[str],
    *,
    fractions: Mapping[str, float],
    least: int,
    num_copies: int,
    num_dropped: int,
) -> None:
    """Refuse splits that nothing can be learnt from or measured on.

    Args:
        splits: the splits.
        classes: names of the classes.
        fractions: split -> part of the images that should go into it.
        least: fewest images of a split.
        num_copies, num_dropped: images that were left out, for the message.

    Raises:
        DataError: an empty class, a split too small, a class not in train.
    """
    sizes = {name: len(splits[name]) for name in SPLITS}
    enough = images_needed(fractions, len(classes), least)
    without = _left_out(num_copies, num_dropped)
    counts = class_counts(splits, len(classes))
    empty = [name for name, row in zip(classes, counts, strict=True) if sum(row.values()) == 0]
    if empty:
        raise DataError(f"no image of class {_listed(empty)}{without}: give some, or take the class out of the data")
    small = [name for name, size in sizes.items() if size < least]
    if small:
        have = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise DataError(
            f"too few images in {_listed(small)}{without}: {have}; at least {least:,} each are needed. Give about {enough:,} "
            "images (max_images counts too), or raise validation_fraction and test_fraction, or lower min_split_images"
        )
    unlearnt = [name for name, row in zip(classes, counts, strict=True) if row["train"] == 0]
    if unlearnt:
        raise DataError(f"no train image of class {_listed(unlearnt)}{without}: give more images of it")


def _left_out(num_copies: int, num_dropped: int) -> str:
    return f" (left out before: {num_copies:,} copies, {num_dropped:,} dropped)" if num_copies or num_dropped else ""


def class_counts(splits: Mapping[str, Split], num_classes: int) -> list[dict[str, int]]:
    """Return, for each class, split -> number of its images."""
    counts = {name: torch.bincount(split.labels[split.labels >= 0], minlength=num_classes) for name, split in splits.items()}
    return [{name: int(counts[name][label]) for name in SPLITS} for label in range(num_classes)]


def images_needed(fractions: Mapping[str, float], num_classes: int, least: int) -> int:
    """Return a number of images that is enough, but for a chance of about RISK.

    A split of n images in all is binomial, n f on average, with a deviation of sqrt(n f (1 - f)); a class of c images misses
    train with chance (1 - f)^c, f train's part.
    """
    needed = 0.0
    for fraction in fractions.values():
        spread = _RISK_IN_DEVIATIONS * math.sqrt(fraction * (1 - fraction))
        root = (spread + math.sqrt(spread**2 + 4 * fraction * least)) / (2 * fraction)  # of n: f n - spread sqrt(n) = least
        needed = max(needed, root**2)
    if num_classes:
        each = math.log(RISK / num_classes) / math.log(1 - fractions["train"])
        needed = max(needed, num_classes * math.ceil(each))
    return math.ceil(needed)


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")
