"""How the error falls with the number of labels, and where two such curves cross.

Legend: n labels of each class at L points, S seeds, N images, R resamples, G values of c that are tried.

The model of a curve is error(n) = a + b·n^-c with a, b >= 0: a is what the error tends to with ever more labels, c how fast.
For a given c the best a and b are those of a straight line, so every c on a grid is tried and the best taken: no start value,
no failure to converge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATES = np.geomspace(0.05, 4.0, 60)
"""Values of c that are tried."""
LEAST_POINTS = 3
"""Three parameters need as many numbers of labels."""
LEAST_SHARE = 0.95
"""Share of the resamples that must have a crossing for it to be one."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A fitted curve of one model.

    Attributes:
        num_labels: n at the points, (L,).
        errors: mean error at them, (L,).
        a, b, c: of the fit.
        a_interval: of 95 %, by drawing images and seeds again.
    """

    num_labels: np.ndarray
    errors: np.ndarray
    a: float
    b: float
    c: float
    a_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where the first model's fitted error meets the second's, among the numbers of labels that were tried.

    Attributes:
        place: n*, None: there is none that can be told.
        interval: of 95 % over the resamples that have one; None without a place.
        share: of the resamples that have one.
    """

    place: float | None
    interval: tuple[float, float] | None
    share: float


def fit(num_labels: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return a, b, c of each row of `errors` (R, L), as (R, 3), by least squares."""
    x = np.asarray(num_labels, dtype=np.float64)[None] ** -RATES[:, None]  # (G, L)
    gap = x - x.mean(axis=1, keepdims=True)
    mean = errors.mean(axis=1)[:, None]
    b = np.maximum((errors @ gap.T) / (gap**2).sum(axis=1), 0.0)  # (R, G)
    a = mean - b * x.mean(axis=1)
    below = a < 0  # the best line would end below no error at all: then it goes through 0
    b = np.where(below, (errors @ x.T) / (x**2).sum(axis=1), b)
    a = np.where(below, 0.0, a)
    loss = ((errors[:, None] - a[..., None] - b[..., None] * x) ** 2).sum(axis=2)
    best = loss.argmin(axis=1)
    rows = np.arange(len(errors))
    return np.stack([a[rows, best], b[rows, best], RATES[best]], axis=1)


def resampled(errors: np.ndarray, *, seed: int, num_resamples: int) -> np.ndarray:
    """Return mean errors (R, L) when test images and seeds are drawn again, the same ones at every point.

    Models with errors of one shape and the same seed get the same draws, so differences between them are paired.

    Args:
        errors: 0 or 1, (L, S, N).
        seed: of the draws.
        num_resamples: R.
    """
    _, num_seeds, num_images = errors.shape
    generator = np.random.default_rng(seed)
    images = generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples) / num_images
    seeds = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=num_resamples) / num_seeds
    per_seed = np.tensordot(images, errors, axes=(1, 2))  # (R, L, S)
    return np.asarray((per_seed * seeds[:, None]).sum(axis=2))


def learning_curve(num_labels: Sequence[int], errors: np.ndarray, *, seed: int, num_resamples: int) -> Curve:
    """Fit one model's errors, 0 or 1, (L, S, N)."""
    n, means = np.asarray(num_labels, dtype=np.float64), errors.mean(axis=(1, 2))
    a, b, c = fit(n, means[None])[0]
    drawn = fit(n, resampled(errors, seed=seed, num_resamples=num_resamples))[:, 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Curve(num_labels=n, errors=means, a=float(a), b=float(b), c=float(c), a_interval=(float(low), float(high)))


def crossover(num_labels: Sequence[int], first: np.ndarray, second: np.ndarray, *, seed: int, num_resamples: int) -> Crossover:
    """Return where the first model, better at fewer labels, is overtaken by the second; errors (L, S, N) each.

    Nothing is said of numbers of labels outside of those tried: a curve is not followed to where nobody looked.
    """
    n = np.asarray(num_labels, dtype=np.float64)
    found = _places(n, *(fit(n, errors.mean(axis=(1, 2))[None]) for errors in (first, second)))[0]
    drawn = _places(n, *(fit(n, resampled(one, seed=seed, num_resamples=num_resamples)) for one in (first, second)))
    there = drawn[np.isfinite(drawn)]
    share = len(there) / len(drawn)
    if not np.isfinite(found) or share < LEAST_SHARE:
        return Crossover(place=None, interval=None, share=share)
    low, high = np.quantile(there, [0.025, 0.975])
    return Crossover(place=float(found), interval=(float(low), float(high)), share=share)


def _places(num_labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return for each pair of fits (R, 3) the n where first - second goes from below 0 to above, NaN where it does not."""
    grid = np.geomspace(num_labels.min(), num_labels.max(), 200)
    values = [fits[:, :1] + fits[:, 1:2] * grid ** -fits[:, 2:] for fits in (first, second)]
    gaps = values[0] - values[1]
    crosses = (gaps[:, :-1] < 0) & (gaps[:, 1:] >= 0)
    return np.where(crosses.any(axis=1), grid[1:][crosses.argmax(axis=1)], np.nan)
