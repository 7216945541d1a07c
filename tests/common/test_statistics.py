"""Bootstrap intervals: seeded, sized by the spread, over documents."""

import math

import numpy as np
import pytest

from stages.common.statistics import paired_ratio_interval, ratio_interval


def test_the_interval_of_a_mean_is_the_one_of_the_central_limit_theorem():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = ratio_interval(values, np.ones(400), seed=1, num_resamples=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_a_long_document_weighs_by_its_length():
    low, high = ratio_interval([10.0, 10.0, 4000.0], [10, 10, 1000], seed=0)
    assert (low, high) == (1.0, 4.0)  # all draws short, all draws long
    assert ratio_interval([30.0, 50.0], [30, 50], seed=0) == (1.0, 1.0)


def test_the_same_seed_gives_the_same_interval_whatever_the_block_of_draws(monkeypatch):
    top, bottom = np.random.default_rng(0).random((2, 50))
    first = ratio_interval(top, bottom, seed=3)
    assert first == ratio_interval(top, bottom, seed=3) != ratio_interval(top, bottom, seed=4)
    monkeypatch.setattr("stages.common.statistics.DRAWS_AT_ONCE", 120)
    assert ratio_interval(top, bottom, seed=3) == first


def test_pairing_sees_a_change_that_two_single_intervals_hide():
    generator = np.random.default_rng(0)
    size = generator.integers(50, 500, size=60).astype(float)
    before = size * generator.normal(2, 0.5, size=60)
    after = before - 0.05 * size
    low, high = paired_ratio_interval(before, after, size, seed=0)
    assert low == pytest.approx(-0.05) == high
    assert ratio_interval(after, size, seed=0)[1] > ratio_interval(before, size, seed=0)[0]


def test_empty_documents_count_for_nothing_and_one_document_has_no_spread():
    assert ratio_interval([0.0, 6.0, 0.0], [0, 3, 0], seed=0) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("top", "bottom"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([1.0], [math.inf]), ([1.0], [0.0])]
)
def test_lists_without_a_ratio_are_refused(top, bottom):
    with pytest.raises(ValueError, match="must be"):
        ratio_interval(top, bottom, seed=0)
