"""Our numbers against those of torchmetrics and prdc, stored by `python -m benchmarks.metric_oracles --write`."""

from __future__ import annotations

import json

import pytest

from benchmarks.metric_oracles import CASES, GOLDEN, TOLERANCE, our_numbers

STORED = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]


def test_the_stored_numbers_are_those_of_the_cases():
    assert [{key: value for key, value in case.items() if key != "values"} for case in STORED] == CASES
    assert all({"frechet_distance", "precision", "recall", "density", "coverage"} <= case["values"].keys() for case in STORED)
    assert sum("kernel_distance" in case["values"] for case in STORED) == 3


@pytest.mark.parametrize("case", STORED, ids=[case["name"] for case in STORED])
def test_our_metrics_are_those_of_the_oracles(case):
    ours = our_numbers(case)
    assert {name: ours[name] for name in case["values"]} == pytest.approx(case["values"], abs=TOLERANCE, rel=0)
