"""The bands of the comparison's curves are intervals, on a chart whose axis is logarithmic."""

from __future__ import annotations

import math

import pytest

from stages.common.verdicts import t_interval
from stages.image.compare.pictures import band_of
from tests.image.comparisons import number


def test_a_band_is_the_interval_of_the_logarithm_over_seeds():
    band = band_of(0, [1, 2], [number(1.0, 2.0, 4.0), number(3.0, 3.0, 3.0)])
    low, high = t_interval([0.0, math.log(2), math.log(4)])
    assert band.means == [pytest.approx(7 / 3), 3]
    assert (band.lows, band.highs) == (pytest.approx([math.exp(low), 3]), pytest.approx([math.exp(high), 3]))


def test_with_few_seeds_a_band_shows_what_other_draws_of_samples_would_change_and_without_them_none():
    drawn, unknown = number(2.0, deviation=0.2), number(2.0)
    band = band_of(0, [1, 2], [drawn, unknown])
    reach = 1.959964 * 0.2 / 2
    assert band.lows == pytest.approx([2 * math.exp(-reach), 2])
    assert band.highs == pytest.approx([2 * math.exp(reach), 2])


def test_a_distance_of_zero_has_no_logarithm_and_no_band():
    band = band_of(0, [1], [number(0.0, 1.0, 2.0)])
    assert (band.lows, band.means, band.highs) == ([1.0], [1.0], [1.0])
