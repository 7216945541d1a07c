"""Numbers and their intervals in words: digits that mean something, and a sign for what the interval stands on."""

from __future__ import annotations

import math

import pytest

from stages.common.verdicts import Estimate
from stages.common.wording import counted, on_what, plus_minus, share_of, short, with_interval


def estimated(mean, reach, method="seeds", num_seeds=3):
    return Estimate(mean=mean, low=mean - reach, high=mean + reach, num_seeds=num_seeds, method=method)


@pytest.mark.parametrize(
    ("mean", "reach", "words"),
    [
        (0.5678, 0.0512, "0.568 ± 0.051"),
        (0.104271, 0.00016, "0.1043 ± 0.0002"),
        (1234.5, 99.4, "1,234 ± 99"),
        (-0.25, 0.5, "−0.25 ± 0.50"),
        (0.0, 0.02, "0.000 ± 0.020"),
        (2.0, 0.0, "2"),
    ],
)
def test_two_digits_of_the_interval_and_four_of_the_mean(mean, reach, words):
    assert plus_minus(estimated(mean, reach)).replace("\u00a0", " ") == words


def test_an_interval_that_was_cut_at_a_limit_is_told_by_its_longer_arm():
    assert (
        plus_minus(Estimate(mean=0.02, low=0.0, high=0.12, num_seeds=3, method="seeds")).replace("\u00a0", " ") == "0.02 ± 0.10"
    )


def test_the_sign_says_what_was_varied():
    assert plus_minus(estimated(1.0, 0.1, method="samples")) == "1.00\u00a0~\u00a00.10"
    none = Estimate(mean=1.0, low=math.nan, high=math.nan, num_seeds=1, method="none")
    assert (plus_minus(none), with_interval(none)) == ("1", "1 (no interval)")
    assert with_interval(estimated(0.5, 0.1)) == "0.5 [0.4,\u00a00.6]"


def test_what_an_interval_stands_on_is_named():
    methods = ("seeds", "samples", "images", "images and seeds", "none")
    assert [
        on_what(estimated(1.0, 0.1, method=method, num_seeds=n)) for method, n in zip(methods, (3, 1, 2, 3, 1), strict=True)
    ] == [
        "3 seeds",
        "the samples of 1 seed",
        "images, 2 seeds",
        "images and 3 seeds",
        "1 seed, no spread known",
    ]


def test_three_digits_are_enough():
    assert [short(value) for value in (0.0, 0.012345, 12.345, 1730.4)] == ["0", "0.0123", "12.3", "1,730"]


def test_one_is_not_many():
    assert [counted(number, "seed") for number in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


def test_none_of_few_is_no_proof_of_none():
    assert share_of(1000, estimated(0.0, 0.0)) == "none of 1,000 (below 0.00368)"
    assert share_of(1000, estimated(0.01, 0.01)) == with_interval(estimated(0.01, 0.01))
