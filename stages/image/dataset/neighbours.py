"""How near test comes to train: the nearest train image of each test image, in pixel space.

Legend: T test images, N train images, D values of an image.

Exact copies cannot be in two splits. Images that differ by one level here and there can, and a model that learnt the one
by heart would seem to know the other; this module counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MAX_TEST_IMAGES = 1000
"""At most this many test images are compared, the first by content hash."""
_BLOCK_VALUES = 1 << 22  # of train in one matrix product
_ROUNDING = 1e-5  # of float32 in a squared distance, as a part of the squared norms; generous


@dataclass(frozen=True)
class Nearness:
    """What was found.

    Attributes:
        num_images: test images that were compared.
        num_near: how many of them have a train image that nowhere differs by more than one level.
        median_distance: half of them are nearer to train than this: root of the mean squared difference, in levels.
    """

    num_images: int
    num_near: int
    median_distance: float


def nearness(test: np.ndarray, train: np.ndarray, beat: Callable[[], None]) -> Nearness:
    """Compare `test`, uint8 (T, ...), with `train`, uint8 (N, ...), T and N >= 1; `beat` is called for each block.

    A difference of at most one level everywhere means a squared distance of at most D. So the squared distances, by a
    matrix product in float32, leave few pairs to look at in whole numbers.
    """
    test = test[:MAX_TEST_IMAGES].reshape(min(len(test), MAX_TEST_IMAGES), -1)
    train = train.reshape(len(train), -1)
    queries = _centred(test)
    query_norms = (queries**2).sum(axis=1)[:, None]
    best = np.full(len(test), np.inf, dtype=np.float32)
    nearest = np.zeros(len(test), dtype=np.int64)
    near = np.zeros(len(test), dtype=bool)
    step = max(1, _BLOCK_VALUES // test.shape[1])
    for start in range(0, len(train), step):
        beat()
        block = _centred(train[start : start + step])
        norms = query_norms + (block**2).sum(axis=1)
        squared = norms - 2 * queries @ block.T
        rows = squared.argmin(axis=1)
        values = squared[np.arange(len(test)), rows]
        nearest, best = np.where(values < best, start + rows, nearest), np.minimum(values, best)
        candidates = squared <= test.shape[1] + _ROUNDING * norms
        for row in np.flatnonzero(candidates.any(axis=1) & ~near):
            others = train[start + np.flatnonzero(candidates[row])].astype(np.int64)
            near[row] = (np.abs(others - test[row]).max(axis=1) <= 1).any()
    gaps = test.astype(np.int64) - train[nearest]
    distances = np.sqrt((gaps**2).mean(axis=1))
    return Nearness(len(test), int(near.sum()), float(np.median(distances)))


def _centred(images: np.ndarray) -> np.ndarray:
    # Around the middle level, so that the sums stay small enough for float32.
    return images.astype(np.float32) - 128
