"""Which labelled images a model learns from: the same nested choices for every model that is compared.

Legend: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import DataError
from stages.common.images.grid import Split
from stages.common.images.noise import seeded_generator

_CHOICE = 2**41
"""Stream of random numbers that no step of a training uses."""


def labelled(split: Split) -> Split:
    """Return the images that have a label."""
    known = split.labels >= 0
    return Split(split.images[known], split.labels[known])


def label_subset(train: Split, classes: Sequence[str], *, num_labels: int | None, seed: int) -> Split:
    """Return `num_labels` labelled images of each class in their order in `train`; None: all labelled images.

    Every class has an order of its own that follows from the seed alone, and a choice is its beginning: a smaller number
    of labels takes a part of a larger one's images, whoever asks.

    Raises:
        DataError: fewer than two classes, or a class has fewer images.
    """
    known = labelled(train)
    if len(classes) < 2 or not len(known):
        raise DataError(
            f"the images have {len(classes)} classes and {len(known)} labels; telling classes apart needs two or more: take "
            "images with labels, or set class_conditional: false"
        )
    counts = torch.bincount(known.labels, minlength=len(classes))
    least = int(counts.argmin())
    if counts[least] < (num_labels or 1):
        name, found = classes[least], int(counts[least])
        if not found:
            raise DataError(f"class '{name}' has no labelled train image; take more images")
        raise DataError(
            f"num_labels is {num_labels}, but class '{name}' has {found} train images; set at most {found}, or take more images"
        )
    if num_labels is None:
        return known
    chosen = [_first_of_class(known.labels, label, num_labels, seed) for label in range(len(classes))]
    rows = torch.cat(chosen).sort().values
    return Split(known.images[rows], known.labels[rows])


def labels_in_turn(num_images: int, num_classes: int) -> Tensor:
    """Return 0, 1, ..., K - 1, 0, 1, ... as int64 (num_images,): as many images of one class as of any other."""
    return torch.arange(num_images) % num_classes


def _first_of_class(labels: Tensor, label: int, num_labels: int, seed: int) -> Tensor:
    rows = (labels == label).nonzero().flatten()
    return rows[torch.randperm(len(rows), generator=seeded_generator(seed, _CHOICE, label))[:num_labels]]
