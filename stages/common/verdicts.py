"""How sure a comparison is: intervals over seeds and over samples, paired differences, verdicts that allow for many tests.

A seed is one whole training, so what differs between seeds is what another training would change: with three seeds or
more every interval is a t interval over seeds. With fewer, only the luck of drawing the samples is known, which says
nothing of another training; such an interval is named so wherever it is shown.

Legend: S seeds, N images, R resamples.

Sources: Student, The probable error of a mean (1908); Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter
13; Holm, A simple sequentially rejective multiple test procedure (1979); Spearman (1904).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy.stats import rankdata

LEVEL = 0.95
LEAST_SEEDS = 3
"""From this many seeds on, intervals are over seeds."""
MOST_EXACT = 8
"""Up to this many values all orders are tried (40,320); above, a sample of them."""
_IMAGES_AT_ONCE = 2**22

Method = Literal["seeds", "pooled seeds", "samples", "images", "images and seeds", "none"]
Verdict = Literal["better", "worse", "not separable"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        mean: over the seeds.
        low, high: the interval; both are NaN where `method` is "none".
        num_seeds: trainings that it stands on.
        method: what was taken as random.
    """

    mean: float
    low: float
    high: float
    num_seeds: int
    method: Method


@dataclass(frozen=True, kw_only=True)
class Difference(Estimate):
    """First minus second, with the probability of a difference at least as large if there were none (two-sided)."""

    p_value: float


@dataclass(frozen=True)
class Sampled:
    """One number of one model.

    Attributes:
        values: of each training, by its seed.
        deviations: standard deviation of each value over other draws of samples, by seed; NaN where it is unknown.
        bounds: between which such a number lies, such as 0 and 1 for a share.
        degrees: degrees of freedom of each deviation, one less than the draws it stands on.
        common: standard deviation of an error that all seeds share, such as that of the real images in a ratio to them; further
            seeds do not shrink it, and in a difference of two such ratios it cannot change the sign.
        common_degrees: its degrees of freedom.
    """

    values: dict[int, float]
    deviations: dict[int, float]
    bounds: tuple[float, float] = (-math.inf, math.inf)
    degrees: float = math.inf
    common: float = 0.0
    common_degrees: float = math.inf


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of independent, roughly normal values.

    Raises:
        ValueError: fewer than two values.
    """
    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2:
        raise ValueError(f"an interval over {len(found)} value needs a spread; give two values or more")
    reach = t_quantile(len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return float(found.mean() - reach), float(found.mean() + reach)


def estimate(number: Sampled) -> Estimate:
    """Return the mean over seeds with a t interval from LEAST_SEEDS seeds on, else with the spread over samples.

    The error that all seeds share is added in quadrature, half interval to half interval, so that no further source of error
    makes an interval narrower, as one quantile for the sum of the variances would where it has more degrees of freedom. An
    interval is cut at the number's bounds: beyond them lies no true value that it could miss.
    """
    values = list(number.values.values())
    mean = float(np.mean(values))
    if len(values) >= LEAST_SEEDS:
        low, high = t_interval(values)
        reach, method = (high - low) / 2, "seeds"
    else:
        deviation, degrees = _of_mean(number)
        reach, method = t_quantile(degrees) * deviation, "samples"
    if number.common:
        reach = math.hypot(reach, t_quantile(number.common_degrees) * number.common)
    if math.isnan(reach):
        return Estimate(mean=mean, low=math.nan, high=math.nan, num_seeds=len(values), method="none")
    least, most = number.bounds
    low, high = max(mean - reach, least), min(mean + reach, most)
    return Estimate(mean=mean, low=low, high=high, num_seeds=len(values), method=cast("Method", method))


def paired_difference(differences: Sequence[float]) -> Difference:
    """Return mean, t interval and p value of the differences of pairs, one for each seed, at least two."""
    found = np.asarray(differences, dtype=np.float64)
    if len(found) < 2:
        raise ValueError(f"a difference over {len(found)} pair needs a spread; give two pairs or more")
    error = float(found.std(ddof=1)) / math.sqrt(len(found))
    return t_difference(float(found.mean()), error, len(found) - 1, num_seeds=len(found), method="seeds")


def t_difference(mean: float, error: float, degrees: float, *, num_seeds: int, method: Method) -> Difference:
    """Return the interval and the two-sided p value of a difference with this standard error and degrees of freedom."""
    reach = t_quantile(degrees) * error
    p_value = 2 * _lower_tail(-_ratio(mean, error), degrees)
    return Difference(mean=mean, low=mean - reach, high=mean + reach, num_seeds=num_seeds, method=method, p_value=float(p_value))


def satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error and the degrees of freedom of a sum of independent errors, each (variance, degrees).

    Satterthwaite, An approximate distribution of estimates of variance components (1946).
    """
    variance = sum(each for each, _ in parts)
    uncertain = sum(each**2 / degrees for each, degrees in parts)
    return math.sqrt(variance), variance**2 / uncertain if uncertain > 0 else math.inf


def t_quantile(degrees: float, level: float = LEVEL) -> float:
    """Return how many standard errors the interval of `level` reaches to either side; normal for infinite degrees."""
    tail = (1 + level) / 2
    return float(special.ndtri(tail) if math.isinf(degrees) else special.stdtrit(degrees, tail))


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, *, seed: int, num_resamples: int = 10_000, over_seeds: Difference | None = None
) -> Difference:
    """Compare two models on the same images: the images are drawn again, the same ones for both and for every seed.

    The percentile interval is over images. From LEAST_SEEDS seeds on, the t interval over seeds is computed as well, and the
    result covers both and takes the larger p value: a difference must outlast other images and other trainings.

    Args:
        first, second: bits per dimension, (S, N) each; rows of one index share the seed, columns the image.
        seed: of the draws.
        num_resamples: R.
        over_seeds: the difference over seeds, where it is not that of pairs of equal seeds; always allowed for.

    Raises:
        ValueError: the shapes differ, or there is nothing to compare.
    """
    if np.shape(first) != np.shape(second) or np.ndim(first) != 2 or not np.size(first):
        raise ValueError(f"two arrays (seeds, images) of one shape are needed, got {np.shape(first)} and {np.shape(second)}")
    gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    means = _resampled_means(gaps.mean(axis=0), seed=seed, num_resamples=num_resamples)
    low, high = (float(end) for end in np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    # One is added so that no p value is zero: R draws cannot show less than 1 / (R + 1).
    tail = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value, method = min(1.0, 2 * tail / (num_resamples + 1)), "images"
    if over_seeds or len(gaps) >= LEAST_SEEDS:
        over_seeds = over_seeds or paired_difference(gaps.mean(axis=1).tolist())
        low, high, p_value = min(low, over_seeds.low), max(high, over_seeds.high), max(p_value, over_seeds.p_value)
        method = "images and seeds"
    return Difference(mean=float(gaps.mean()), low=low, high=high, num_seeds=len(gaps), method=method, p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p values: rejecting those below 0.05 errs at all with probability 0.05 at most.

    Example: holm([0.01, 0.04, 0.03]) = [0.03, 0.06, 0.06].
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def verdict(found: Difference, p_value: float, *, higher_is_better: bool) -> Verdict:
    """Return what `found` says of the first of the two, with a p value that allows for the number of tests."""
    if not p_value < 1 - LEVEL or found.low <= 0 <= found.high:
        return "not separable"
    return "better" if (found.mean > 0) == higher_is_better else "worse"


def spearman(first: Sequence[float], second: Sequence[float], *, seed: int) -> tuple[float, tuple[float, float], float]:
    """Return Spearman's rank correlation, the range of 95 % of random orders, and the two-sided permutation p value.

    With few values the range is wide: three models can hardly show anything. All orders are tried for up to MOST_EXACT values.

    Raises:
        ValueError: fewer than three pairs, or all values of one side alike.
    """
    x, y = rankdata(first), rankdata(second)
    if len(x) != len(y) or len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError(f"a rank correlation needs three pairs or more that differ, got {len(x)} and {len(y)} values")
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    if len(y) <= MOST_EXACT:
        orders = np.array(list(itertools.permutations(range(len(y)))))
    else:
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(len(y)), (20_000, 1)), axis=1)
    observed, random = float((x * y).mean()), (x * y[orders]).mean(axis=1)
    low, high = np.quantile(random, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p_value = float((np.abs(random) >= abs(observed) - 1e-12).mean())
    return observed, (float(low), float(high)), p_value


def _resampled_means(values: np.ndarray, *, seed: int, num_resamples: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    block = max(1, _IMAGES_AT_ONCE // len(values))
    for start in range(0, num_resamples, block):
        rows = min(block, num_resamples - start)
        means[start : start + rows] = values[generator.integers(0, len(values), size=(rows, len(values)))].mean(axis=1)
    return means


def _of_mean(number: Sampled) -> tuple[float, float]:
    """Return the standard deviation of the mean over seeds by their draws of samples, and its degrees of freedom."""
    return satterthwaite([((each / len(number.values)) ** 2, number.degrees) for each in number.deviations.values()])


def _lower_tail(value: float, degrees: float) -> float:
    return float(special.ndtr(value) if math.isinf(degrees) else special.stdtr(degrees, value))


def _ratio(mean: float, error: float) -> float:
    """Return |mean| / error; without a spread any difference is certain and none is none."""
    if error == 0:
        return 0.0 if mean == 0 else math.inf
    return abs(mean) / error
