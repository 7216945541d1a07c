"""Differences of means over seeds of different families: unpaired, with the spread of a seed pooled where that is fair.

Equal seed numbers of different architectures share nothing that pairing would remove, and three seeds alone leave two degrees
of freedom: with 15 pairs Holm's first step would ask for |t| > 17. Pooled over six families there are twelve, and it asks for
3.7. Pooling takes all families for equally variable, and where one is not its pairs get verdicts by chance.

The rule: a pair keeps its own variances (Welch, with Satterthwaite's degrees of freedom) where they are more than MOST_ABOVE
times what the pool says, or where fewer than LEAST_POOLED families make the pool. One side is enough: where its own variances
are smaller than the pool's, a pair is judged too strictly, never too boldly. A test for unequal variances of the whole table
would be no guard: with three seeds and six families the largest variance must be 266 times the smallest (Hartley, The maximum
F-ratio, 1950) before it sees anything. Simulated over tables of equal families, deviations all alike, one or half of them 2
to 20 times the others', or in steps of two: some pair is wrongly told apart in 1 to 5 tables of 100, without the rule in up to
18 (`tests/image/test_compare_contrasts.py`). Its price: one restless family makes calm pairs look restless too. Leaving outlying
variances out of the pool would give their power back, but told equal families apart in up to 11 tables of 100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stages.common.verdicts import LEAST_SEEDS, LEVEL, Difference, Sampled, satterthwaite, t_difference, t_quantile

MOST_ABOVE = 1.25
LEAST_POOLED = 3


@dataclass(frozen=True)
class Pool:
    """The variance from seed to seed, mean over families, and its degrees of freedom."""

    variance: float
    degrees: int
    num_families: int


def pool_of(numbers: Sequence[Sampled]) -> Pool | None:
    """Return the pooled variance of families with two seeds or more; None where there are too few of them."""
    groups = [list(number.values.values()) for number in numbers if len(number.values) > 1]
    if len(groups) < LEAST_POOLED:
        return None
    degrees = sum(len(group) - 1 for group in groups)
    squares = sum((len(group) - 1) * float(np.var(group, ddof=1)) for group in groups)
    return Pool(variance=squares / degrees, degrees=degrees, num_families=len(groups))


def contrast(terms: Sequence[tuple[float, Sampled]], pool: Pool | None) -> Difference | None:
    """Return the sum of weighted means over seeds, such as 1 times one model's and -1 times another's.

    Below LEAST_SEEDS seeds of any of them the variances over draws of samples are added up instead.

    Returns:
        None where nothing is known of the spread, or a model has no seed.
    """
    if not all(number.values for _, number in terms):
        return None
    mean = sum(weight * float(np.mean(list(number.values.values()))) for weight, number in terms)
    num_seeds = min(len(number.values) for _, number in terms)
    if num_seeds < LEAST_SEEDS:
        error, degrees = satterthwaite(_over_samples(terms))
        return None if math.isnan(error) else t_difference(mean, error, degrees, num_seeds=num_seeds, method="samples")
    own, own_degrees = satterthwaite(_over_seeds(terms))
    if pool is not None:
        pooled = math.sqrt(pool.variance * sum(weight**2 / len(number.values) for weight, number in terms))
        if own**2 <= MOST_ABOVE * pooled**2:
            return t_difference(mean, pooled, pool.degrees, num_seeds=num_seeds, method="pooled seeds")
    return t_difference(mean, own, own_degrees, num_seeds=num_seeds, method="seeds")


def unpaired(first: Sampled, second: Sampled, pool: Pool | None) -> Difference | None:
    """Return first minus second; see `contrast`."""
    return contrast([(1.0, first), (-1.0, second)], pool)


def smallest_difference(pool: Pool, num_seeds: int, num_pairs: int) -> float:
    """Return from which difference on two models with so many seeds each can be told apart among so many pairs.

    Of Holm's first step, which the largest difference of a table must pass; further ones need less.
    """
    return t_quantile(pool.degrees, 1 - (1 - LEVEL) / num_pairs) * math.sqrt(2 * pool.variance / num_seeds)


def logarithms(number: Sampled) -> Sampled | None:
    """Return ln of a number, for ratios; None where a value has none. Deviations and limits are carried over (delta method)."""
    if not all(value > 0 for value in number.values.values()):
        return None
    values = {seed: math.log(value) for seed, value in number.values.items()}
    deviations = {seed: each / number.values[seed] for seed, each in number.deviations.items()}
    return replace(number, values=values, deviations=deviations, bounds=(-math.inf, math.inf), common=0.0)


def _over_seeds(terms: Sequence[tuple[float, Sampled]]) -> list[tuple[float, float]]:
    found = [(weight, list(number.values.values())) for weight, number in terms]
    return [(weight**2 * float(np.var(values, ddof=1)) / len(values), len(values) - 1) for weight, values in found]


def _over_samples(terms: Sequence[tuple[float, Sampled]]) -> list[tuple[float, float]]:
    return [
        ((weight * number.deviations[seed] / len(number.values)) ** 2, number.degrees)
        for weight, number in terms
        for seed in number.values
    ]
