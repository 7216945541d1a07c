"""How sure a figure is: bootstrap intervals over documents.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13 (percentile interval).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

DRAWS_AT_ONCE = 2**21
"""Random draws held at one time (16 MiB), so that memory does not grow with the number of documents."""


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of sum(numerators) / sum(denominators) when whole documents are drawn again.

    Documents, not tokens, are the unit: tokens of one document are alike, so drawing tokens would claim too much.
    One document shows no spread: both ends are then the ratio itself.

    Args:
        numerators: one value per document, such as its negative log-likelihood in bits.
        denominators: one value per document, such as its bytes.
        seed: the same seed gives the same interval.
        num_resamples: bootstrap draws.
        level: share of the draws inside the interval.

    Raises:
        ValueError: the two lengths differ, there is no document, or a value is not finite.
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.asarray(denominators, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim != 1 or not len(top):
        raise ValueError(f"numerators {top.shape} and denominators {bottom.shape} must be two equal, non-empty lists")
    if not (np.isfinite(top).all() and np.isfinite(bottom).all() and bottom.sum() > 0):
        raise ValueError("every numerator and denominator must be finite, and the denominators' sum above zero")
    # A document without bytes is left out: a draw of nothing else would have no ratio.
    kept = bottom > 0
    ratios = _resampled_ratios(top[kept], bottom[kept], seed=seed, num_resamples=num_resamples)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_ratio_interval(
    before: ArrayLike,
    after: ArrayLike,
    denominators: ArrayLike,
    *,
    seed: int,
    num_resamples: int = 1000,
) -> tuple[float, float]:
    """Return the 95 % interval of (sum(after) - sum(before)) / sum(denominators) over the same documents.

    Pairing cancels what makes a document hard for both models, so a small change can be seen in few documents. Pass
    `denominators=before` for the relative change.
    """
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return ratio_interval(difference, denominators, seed=seed, num_resamples=num_resamples)


def _resampled_ratios(top: np.ndarray, bottom: np.ndarray, *, seed: int, num_resamples: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    ratios = np.empty(num_resamples)
    block = max(1, DRAWS_AT_ONCE // len(top))
    for start in range(0, num_resamples, block):
        rows = min(block, num_resamples - start)
        drawn = generator.integers(0, len(top), size=(rows, len(top)))
        ratios[start : start + rows] = top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1)
    return ratios
