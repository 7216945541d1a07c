"""How good a classifier is, and whether its confidence can be believed.

Legend: N images.
"""

from __future__ import annotations

import math

import numpy as np


def wilson_interval(num_right: float, num_images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927): it stays inside [0, 1] and is honest for shares near 0 and 1.

    A mean over several classifiers of the same images need not be a whole number of right ones.

    Raises:
        ValueError: no image, or more right ones than images.
    """
    if not 0 <= num_right <= num_images or num_images == 0:
        raise ValueError(f"{num_right} right out of {num_images} images is no share")
    z, share = 1.96, num_right / num_images
    middle = (share + z**2 / (2 * num_images)) / (1 + z**2 / num_images)
    reach = z / (1 + z**2 / num_images) * math.sqrt(share * (1 - share) / num_images + z**2 / (4 * num_images**2))
    # At both ends the formula gives 0 and 1; rounding would not.
    return 0.0 if num_right == 0 else middle - reach, 1.0 if num_right == num_images else middle + reach


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = 10) -> np.ndarray:
    """Return for each of `num_bins` equal bins of confidence its images, mean confidence and accuracy, [num_bins, 3].

    Args:
        probabilities: float [N, classes], rows sum to 1; the confidence is the largest of a row.
        labels: int [N].
        num_bins: of [0, 1]; the two means of an empty bin are NaN.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins).astype(np.float64)
    sums = np.stack([np.bincount(bins, weights=values, minlength=num_bins) for values in (confidence, right)])
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return np.concatenate([counts[None], means]).T


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = 10) -> float:
    """Return Σ over bins of (images in it / N)·|accuracy - mean confidence| (Guo et al., arXiv 1706.04599, eq. 5)."""
    counts, confidence, accuracy = reliability(probabilities, labels, num_bins=num_bins).T
    filled = counts > 0
    return float(np.sum(counts[filled] * np.abs(accuracy[filled] - confidence[filled])) / len(labels))
