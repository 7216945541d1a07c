"""Intervals, paired tests and verdicts of the comparison, on cases worked out by hand and on simulated models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from stages.common.images.spread import redrawn
from stages.common.verdicts import (
    Sampled,
    estimate,
    holm,
    paired_bootstrap,
    paired_difference,
    satterthwaite,
    spearman,
    t_interval,
    t_quantile,
    verdict,
)
from stages.image.compare.contrasts import unpaired


def sampled(*values, deviation=math.nan):
    return Sampled(dict(enumerate(values)), dict.fromkeys(range(len(values)), deviation))


def test_the_t_interval_of_1_2_3_is_2_plus_and_minus_4_3027_over_the_root_of_3():
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 4.302653 / math.sqrt(3)), pytest.approx(2 + 4.302653 / math.sqrt(3)))


def test_one_value_has_no_t_interval_and_one_pair_no_difference():
    for refused in (t_interval, paired_difference):
        with pytest.raises(ValueError, match="needs a spread"):
            refused([1.0])


def test_deviations_of_few_draws_reach_as_far_as_their_degrees_of_freedom_demand():
    one = estimate(replace(sampled(1.0, deviation=0.5), degrees=3))
    assert one.high - one.mean == pytest.approx(3.182446 * 0.5)
    two = estimate(replace(sampled(1.0, 3.0, deviation=0.5), degrees=3))  # two equal variances: twice the degrees
    assert two.high - two.mean == pytest.approx(2.446912 * 0.5 / math.sqrt(2))
    pair = [replace(sampled(value, deviation=deviation), degrees=3) for value, deviation in ((3.0, 0.3), (2.0, 0.4))]
    found, degrees = unpaired(*pair, None), 3 * 0.25**2 / (0.09**2 + 0.16**2)
    assert found.high - found.mean == pytest.approx(t_quantile(degrees) * 0.5)
    assert found.p_value > 0.0455, "the normal distribution would call this significant"


def test_satterthwaite_by_hand():
    assert satterthwaite([(3.0, 2), (1.0, 2)]) == (2.0, pytest.approx(16 / (9 / 2 + 1 / 2)))
    assert satterthwaite([(4.0, math.inf)]) == (2.0, math.inf)
    assert (t_quantile(math.inf), t_quantile(2)) == (pytest.approx(1.959964), pytest.approx(4.302653))


def test_three_seeds_are_judged_by_their_own_spread_and_fewer_by_that_of_the_samples():
    three = estimate(sampled(1.0, 2.0, 3.0, deviation=100.0))
    assert (three.method, three.mean) == ("seeds", 2.0)
    assert three.high - three.mean == pytest.approx(2.484, abs=1e-3)
    two = estimate(sampled(1.0, 3.0, deviation=0.5))
    assert (two.method, two.mean) == ("samples", 2.0)
    assert two.high - two.mean == pytest.approx(1.959964 * 0.5 / math.sqrt(2))


@pytest.mark.parametrize("values", [(0.01, 0.02, 0.5), (0.02, 0.02), (0.99, 0.98)])
def test_the_interval_of_a_share_is_cut_at_0_and_at_1(values):
    free = estimate(sampled(*values, deviation=0.1))
    found = estimate(replace(sampled(*values, deviation=0.1), bounds=(0.0, 1.0)))
    assert free.low < 0 or free.high > 1
    assert (found.low, found.high) == (max(0.0, free.low), min(1.0, free.high))
    assert (found.mean, found.method) == (free.mean, free.method)


def test_an_error_that_all_seeds_share_widens_the_interval_and_never_narrows_it():
    alone = sampled(0.98, 0.99, 1.0)
    found = estimate(replace(alone, common=0.02, common_degrees=435))
    assert found.high - found.mean == pytest.approx(math.hypot(t_interval([0.98, 0.99, 1.0])[1] - 0.99, 1.965434 * 0.02))
    for common in (0.001, 0.01, 0.1):
        assert estimate(replace(alone, common=common)).high > estimate(alone).high
    one = estimate(replace(sampled(1.0, deviation=0.03), common=0.04))
    assert one.high - one.mean == pytest.approx(1.959964 * 0.05)


def test_a_ratio_to_few_real_images_covers_the_truth_only_with_their_error():
    generator, covered, without, num_trials = np.random.default_rng(6), 0, 0, 500
    for trial in range(num_trials):
        real = generator.gamma(4.0, 0.25, size=100)
        models = [generator.gamma(4.0, 0.25, size=400).mean() for _ in range(3)]  # as sharp as real images: the ratio is 1
        common = redrawn(lambda rows, x=real: {"mean": 1 / float(x[rows].mean())}, 100, seed=trial, num_redraws=50)["mean"]
        number = sampled(*(model / real.mean() for model in models))
        for shared in (0.0, common):
            found = estimate(replace(number, common=shared, common_degrees=99))
            covered += bool(shared) and found.low <= 1 <= found.high
            without += not shared and found.low <= 1 <= found.high
    assert without / num_trials < 0.75
    assert covered / num_trials > 0.92


def test_without_any_spread_there_is_a_mean_and_no_interval():
    found = estimate(sampled(1.0, 3.0))
    assert (found.method, found.mean) == ("none", 2.0)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    # Bits of one image alone: their error over images is unknown.
    assert estimate(replace(sampled(1.0, 2.0, 4.0), common=math.nan)).method == "none"


def test_the_paired_t_test_on_a_case_done_by_hand():
    found = paired_difference([1.0, 2.0, 3.0])  # t = 2 / (1 / sqrt 3) = 3.4641 with 2 degrees of freedom
    assert found.p_value == pytest.approx(0.0742, abs=1e-4)
    assert found.low < 0 < found.high


def test_with_few_seeds_the_variances_of_both_draws_add_up():
    found = unpaired(sampled(3.0, deviation=0.3), sampled(2.0, deviation=0.4), None)
    assert (found.method, found.mean) == ("samples", 1.0)
    assert found.high - found.mean == pytest.approx(1.959964 * 0.5)
    assert found.p_value == pytest.approx(0.0455, abs=1e-4)  # two standard errors
    assert unpaired(sampled(3.0), sampled(2.0), None) is None


def test_the_paired_bootstrap_covers_a_known_difference_at_the_stated_rate():
    generator, truth, covered = np.random.default_rng(0), 0.03, 0
    for trial in range(200):
        hard = generator.gamma(4.0, 0.5, size=80)  # images differ far more than models do
        first = hard + 0.1 * generator.standard_normal((2, 80)) + truth
        second = hard + 0.1 * generator.standard_normal((2, 80))
        found = paired_bootstrap(first, second, seed=trial, num_resamples=300)
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / 200 <= 0.98  # 0.95 and four standard errors of 200 trials, cut by the percentile method's own bias


def test_pairing_sees_a_difference_that_the_spread_of_images_would_hide():
    generator = np.random.default_rng(1)
    hard = generator.gamma(4.0, 0.5, size=200)
    found = paired_bootstrap(
        (hard + 0.02)[None], (hard + 0.01 * generator.standard_normal(200))[None], seed=0, num_resamples=2000
    )
    assert 0.01 < found.low < 0.02 < found.high < 0.03
    assert (found.method, found.p_value) == ("images", pytest.approx(2 / 2001))


def test_a_difference_in_bits_must_outlast_other_trainings_too():
    images = np.zeros(100) + 0.001 * np.random.default_rng(2).standard_normal(100)
    first = np.stack([images + shift for shift in (0.5, -0.2, 0.4)])
    alone = paired_bootstrap(first[:1], np.zeros((1, 100)), seed=0, num_resamples=500)
    found = paired_bootstrap(first, np.zeros((3, 100)), seed=0, num_resamples=500)
    assert alone.low > 0.49
    assert found.method == "images and seeds"
    assert found.low < 0 < found.high
    assert found.p_value > 0.3


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((0, 3), (0, 3)), ((3,), (3,))])
def test_bits_of_other_images_are_refused(shapes):
    with pytest.raises(ValueError, match="of one shape"):
        paired_bootstrap(np.zeros(shapes[0]), np.zeros(shapes[1]), seed=0)


def test_holm_on_the_example_of_its_docstring_and_never_above_1():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_among_equal_families_holm_finds_a_difference_in_no_more_than_a_twentieth_of_the_comparisons():
    generator, wrong = np.random.default_rng(4), 0
    for _ in range(200):
        fd = generator.normal(2.0, 0.2, size=(4, 5))
        pairs = [paired_difference(fd[i] - fd[j]) for i in range(4) for j in range(i)]
        adjusted = holm([pair.p_value for pair in pairs])
        wrong += any(verdict(pair, p, higher_is_better=False) != "not separable" for pair, p in zip(pairs, adjusted, strict=True))
    assert wrong / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_equal_families_are_not_separable_and_unequal_ones_are():
    generator = np.random.default_rng(5)
    noise = generator.normal(0, 0.1, size=(2, 5))
    equal, worse = paired_difference(noise[0] - noise[1]), paired_difference(2.0 + noise[0] - noise[1])
    assert verdict(equal, equal.p_value, higher_is_better=False) == "not separable"
    assert verdict(worse, worse.p_value, higher_is_better=False) == "worse"
    assert verdict(worse, worse.p_value, higher_is_better=True) == "better"
    assert verdict(worse, 0.06, higher_is_better=True) == "not separable"


def test_no_difference_at_all_is_not_separable():
    found = paired_difference([0.0, 0.0, 0.0])
    assert found.p_value == 1
    assert verdict(found, found.p_value, higher_is_better=True) == "not separable"


def test_spearman_of_four_orders_by_hand():
    rho, (low, high), p_value = spearman([1, 2, 3, 4], [10, 30, 20, 40], seed=0)
    assert rho == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert p_value == pytest.approx(8 / 24)  # of the 24 orders, 1 + 3 reach 0.8 from above and as many from below
    assert (low, high) == (pytest.approx(-high), high)


def test_spearman_by_random_orders_agrees_with_all_orders():
    x = list(range(9))
    y = [2, 1, 0, 4, 3, 6, 5, 8, 7]
    rho, _, p_value = spearman(x, y, seed=0)
    assert rho == pytest.approx(1 - 6 * (4 + 0 + 4 + 1 + 1 + 1 + 1 + 1 + 1) / (9 * 80))
    assert p_value < 0.01


def test_a_correlation_of_two_models_or_of_equal_values_is_refused():
    for first, second in (([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3])):
        with pytest.raises(ValueError, match="three pairs or more"):
            spearman(first, second, seed=0)
