"""Counting modes: by hand, against what leaving samples out and drawing them anew gives, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import entropy

from stages.common.metric_modules import load_metric
from stages.common.metrics import mode_count
from stages.common.metrics.mode_count import count_modes, expected_modes, mode_deviations


def compute(predictions, num_modes):
    return load_metric(mode_count).compute(predictions=predictions, num_modes=num_modes)


def test_modes_are_counted_and_their_divergence_is_that_from_equal_shares():
    found = compute([0, 0, 0, 5, 5, 7], 8)
    assert found == {"modes": 3, "mode_divergence": pytest.approx(entropy([3, 2, 1], [1, 1, 1]) + np.log(8 / 3), rel=1e-12)}
    assert compute([2, 2], 8) == {"modes": 1, "mode_divergence": pytest.approx(np.log(8))}
    assert compute(np.arange(8), 8) == {"modes": 8, "mode_divergence": pytest.approx(0, abs=1e-12)}


def test_how_many_modes_perfect_samples_reach_is_the_mean_over_all_that_could_be_drawn():
    drawn = itertools.product(range(4), repeat=3)
    assert expected_modes(3, 4) == pytest.approx(np.mean([len(set(one)) for one in drawn]), rel=1e-12)


def test_the_jackknife_is_that_of_leaving_each_sample_out():
    modes = np.random.default_rng(0).integers(0, 12, size=30)
    left_out = [count_modes(np.delete(modes, row), 12) for row in range(30)]
    for key, deviation in mode_deviations(modes, 12).items():
        values = np.array([one[key] for one in left_out])
        assert deviation == pytest.approx(np.sqrt(29 / 30 * np.sum((values - values.mean()) ** 2)), rel=1e-9)


@pytest.mark.parametrize(("num_samples", "num_drawn"), [(60, 100), (150, 100), (600, 100), (60, 30)])
def test_the_jackknife_is_no_smaller_than_the_spread_over_draws(num_samples, num_drawn):
    generator = np.random.default_rng(1)
    draws = [generator.integers(0, num_drawn, size=num_samples) for _ in range(400)]
    for key in ("modes", "mode_divergence"):
        spread = np.std([count_modes(one, 100)[key] for one in draws], ddof=1)
        told = np.sqrt(np.mean([mode_deviations(one, 100)[key] ** 2 for one in draws]))
        assert 1.2 * spread < told < 3 * spread


@pytest.mark.parametrize(
    ("modes", "num_modes", "message"),
    [
        ([0, 8], 8, "from 0 to 7, got 0 to 8"),
        ([-1, 0], 8, "from 0 to 7, got -1 to 0"),
        ([0.0, 1.0], 8, "a list of two modes or more"),
        ([0], 8, "a list of two modes or more"),
        ([0, 0], 1, "K = 1"),
    ],
)
def test_what_is_no_list_of_modes_is_refused(modes, num_modes, message):
    with pytest.raises(ValueError, match=message):
        compute(modes, num_modes)
