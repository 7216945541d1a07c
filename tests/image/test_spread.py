"""The spread over draws of samples, told by parts of one draw, against draws that are really made anew."""

from __future__ import annotations

import numpy as np
import pytest

from stages.common.images.spread import RANGES, draw_parts, measured, redrawn
from stages.common.verdicts import Sampled, estimate

NUM_SAMPLES = 300


def reached(cells: np.ndarray, num_cells: int) -> dict[str, float]:
    """Coverage in small: the share of cells that hold any sample; and a plain mean beside it."""
    return {"reached": len(np.unique(cells)) / num_cells, "mean": float(cells.mean())}


def told_over_true(num_cells: int) -> dict[str, float]:
    """Return how the deviation that parts tell compares with that of fresh draws."""
    generator = np.random.default_rng(num_cells)
    draws = [reached(generator.integers(num_cells, size=NUM_SAMPLES), num_cells) for _ in range(400)]
    told = []
    for _ in range(4):
        cells = generator.integers(num_cells, size=NUM_SAMPLES)
        parts = draw_parts(NUM_SAMPLES, 60, generator)
        told.append(measured(lambda rows, cells=cells: reached(cells[rows], num_cells), NUM_SAMPLES, parts)["deviations"])
    return {key: np.mean([one[key] for one in told]) / np.std([one[key] for one in draws], ddof=1) for key in told[0]}


@pytest.mark.parametrize("num_cells", [3000, 600, 300])
def test_coverage_is_given_no_less_than_nine_tenths_of_its_true_spread(num_cells):
    found = told_over_true(num_cells)
    assert 0.8 < found["reached"] < 1.6  # halves tell 0.5 to 0.6 where few cells are reached
    assert found["mean"] == pytest.approx(1, abs=0.15)


def test_a_part_holds_nine_tenths_of_the_samples_each_once():
    parts = draw_parts(50, 3, np.random.default_rng(0))
    assert [len(set(part.tolist())) for part in parts] == [45] * 3
    assert len(set(map(tuple, map(sorted, parts)))) == 3
    assert [len(part) for part in draw_parts(4, 1, np.random.default_rng(0))] == [3]


def test_without_parts_nothing_is_said_of_the_spread():
    assert measured(lambda rows: {"n": float(len(rows))}, 7, []) == {"values": {"n": 7.0}, "deviations": {}}


def test_shares_lie_between_0_and_1_and_distances_above_0():
    assert RANGES["recall"] == RANGES["coverage"] == (0.0, 1.0)
    assert RANGES["frechet_distance"][0] == 0
    assert "kernel_distance" not in RANGES, "an estimate without bias falls below 0"
    assert "frechet_ratio" not in RANGES, "nearer than as many real images is possible"


@pytest.mark.slow
@pytest.mark.parametrize("num_parts", [4, 8, 20])
def test_an_interval_from_few_parts_covers_the_truth_at_the_stated_rate(num_parts):
    generator, covered, num_trials = np.random.default_rng(num_parts), 0, 3000
    for _ in range(num_trials):
        samples = generator.normal(5.0, 2.0, size=100)
        found = measured(lambda rows, x=samples: {"mean": float(x[rows].mean())}, 100, draw_parts(100, num_parts, generator))
        one = Sampled({0: found["values"]["mean"]}, {0: found["deviations"]["mean"]}, degrees=num_parts - 1)
        covered += (interval := estimate(one)).low <= 5.0 <= interval.high
    # 0.95 and four standard errors; divisor J and 1.96 cover 0.81, 0.89 and 0.93.
    assert covered / num_trials == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / num_trials) ** 0.5)


def test_other_real_images_move_a_ratio_as_they_would_if_they_were_really_drawn_anew():
    generator = np.random.default_rng(0)
    ratio = lambda real: {"ratio": 3.0 / float(real.mean())}  # noqa: E731
    fresh = [ratio(generator.gamma(4.0, 0.5, size=400))["ratio"] for _ in range(2000)]
    real = generator.gamma(4.0, 0.5, size=400)
    told = redrawn(lambda rows: ratio(real[rows]), 400, seed=0)
    assert told["ratio"] == pytest.approx(np.std(fresh, ddof=1), rel=0.15)
    assert redrawn(lambda rows: ratio(real[rows]), 400, seed=0) == told
