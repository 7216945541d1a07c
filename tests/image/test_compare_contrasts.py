"""Unpaired comparisons over seeds: pooled variances where that is fair, the pair's own where it is not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from stages.common.verdicts import Sampled, holm, verdict
from stages.image.compare.contrasts import contrast, logarithms, pool_of, smallest_difference, unpaired
from tests.image.comparisons import number

NUM_TABLES = 600


def test_a_pooled_variance_by_hand():
    pool = pool_of([number(1.0, 2.0, 3.0), number(5.0, 5.0), number(0.0, 2.0, 4.0, 6.0), number(7.0)])
    assert (pool.variance, pool.degrees, pool.num_families) == (pytest.approx((2 + 0 + 20) / 6), 6, 3)
    assert pool_of([number(1.0, 2.0), number(1.0, 2.0)]) is None


def test_a_pooled_difference_by_hand_and_seeds_need_not_have_the_same_numbers():
    first, second = number(1.0, 2.0, 3.0), Sampled({7: 2.0, 8: 4.0, 9: 3.0}, {})
    pool = pool_of([first, second, number(0.0, 1.0, 2.0)])
    found = unpaired(first, second, pool)
    assert (found.mean, found.method) == (-1.0, "pooled seeds")
    assert found.high - found.mean == pytest.approx(2.446912 * math.sqrt(2 / 3))  # six degrees of freedom


def test_welch_by_hand_where_a_pair_varies_more_than_the_pool():
    first, second = number(0.0, 6.0, 12.0), number(20.0, 20.1, 20.2)
    calm = [number(0.0, 0.1, 0.2)] * 4
    found = unpaired(first, second, pool_of([first, second, *calm]))
    assert found.method == "seeds"
    assert found.high - found.mean == pytest.approx(4.3 * math.sqrt(12), rel=0.01)  # of 36 / 3, two degrees of freedom
    assert unpaired(calm[0], second, pool_of([first, second, *calm])).method == "pooled seeds"


def test_one_model_against_the_mean_of_others_weighs_their_variances():
    ours, others = number(3.0, 4.0, 5.0), [number(1.0, 2.0, 3.0), number(2.0, 3.0, 4.0)]
    found = contrast([(1.0, ours), *((-0.5, other) for other in others)], pool_of([ours, *others]))
    assert found.mean == pytest.approx(1.5)
    assert found.high - found.mean == pytest.approx(2.446912 * math.sqrt((1 + 0.25 + 0.25) / 3))


def test_below_three_seeds_draws_of_samples_are_added_up_and_without_them_nothing_is_said():
    found = unpaired(number(3.0, deviation=0.3), number(2.0, 2.0, deviation=0.4), None)
    assert (found.method, found.mean) == ("samples", 1.0)
    assert found.high - found.mean == pytest.approx(1.959964 * math.hypot(0.3, 0.4 / math.sqrt(2)))
    assert unpaired(number(3.0), number(2.0), None) is None


def told_apart(deviations, shift=0.0, seed=0):
    """Return the share of tables in which some pair of equally good families (or the first, moved by `shift`) is told apart."""
    generator, found = np.random.default_rng(seed), 0
    pairs = list(itertools.combinations(range(len(deviations)), 2))
    for _ in range(NUM_TABLES):
        models = [number(*(generator.standard_normal(3) * deviation)) for deviation in deviations]
        models[0] = number(*(value - shift for value in models[0].values.values()))
        pool = pool_of(models)
        differences = [unpaired(models[i], models[j], pool) for i, j in pairs if i == 0 or not shift]
        adjusted = holm([one.p_value for one in differences] + [1.0] * (len(pairs) - len(differences)))
        found += any(
            verdict(one, p, higher_is_better=False) != "not separable" for one, p in zip(differences, adjusted, strict=False)
        )
    return found / NUM_TABLES


@pytest.mark.slow
@pytest.mark.parametrize(
    "deviations",
    [(1,) * 6, (1, 1, 1, 1, 1, 4), (1, 1, 1, 1, 1, 20), (1, 1, 1, 3, 3, 3), (1, 2, 4, 8, 16, 32), (1, 1, 1), (1, 1, 3)],
)
def test_equal_families_are_told_apart_in_a_twentieth_of_the_tables_however_they_vary(deviations):
    assert told_apart(deviations) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / NUM_TABLES)


def test_three_seeds_and_fifteen_pairs_can_tell_families_apart():
    # A paired test at two degrees of freedom asks for |t| > 17 here: it sees such a difference in 1 table of 20.
    assert told_apart((1,) * 6, shift=5.0) > 0.7


def test_the_smallest_difference_is_where_verdicts_begin():
    models = [number(place - 1.0, place, place + 1.0) for place in (0.0, 50.0, 100.0)]
    pool = pool_of(models)
    least = smallest_difference(pool, 3, 3)
    for factor, outcome in ((0.99, "not separable"), (1.01, "worse")):
        found = unpaired(number(*(value + factor * least for value in models[0].values.values())), models[0], pool)
        assert verdict(found, 3 * found.p_value, higher_is_better=False) == outcome


def test_a_logarithm_carries_deviations_over_and_has_none_of_zero():
    found = logarithms(number(1.0, math.e, deviation=0.1))
    assert list(found.values.values()) == [0.0, 1.0]
    assert found.deviations == {0: 0.1, 1: pytest.approx(0.1 / math.e)}
    assert logarithms(number(0.0, 1.0)) is None
