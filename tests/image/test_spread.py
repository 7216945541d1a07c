"""The spread over draws of samples, told by parts of one draw, against draws that are really made anew."""

from __future__ import annotations

import numpy as np
import pytest

from stages.common.images.spread import RANGES, draw_parts, measured

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
