"""What becomes of the stages behind one that did not finish."""

from __future__ import annotations

import pytest

from pipeline.graph import build_graph
from pipeline.job import Outcome
from pipeline.plan import make_plan
from pipeline.recipe import load_recipe
from pipeline.runner import RunState, _without_running
from pipeline.store import Store
from tests.engine.conftest import Project


@pytest.mark.parametrize(
    ("state", "words"), [("failed", "failed"), ("interrupted", "was interrupted"), ("skipped", "was skipped")]
)
def test_a_skipped_stage_says_what_became_of_its_need(state: str, words: str, toys: Project) -> None:
    stages = "  a: {stage: toy.write, text: a}\n  b: {stage: toy.write, text: b, needs: {upstream: a}}\n"
    store = Store(toys.root)
    plan = make_plan(build_graph(load_recipe(toys.recipe(f"name: r\nstages:\n{stages}"))), store, "r")
    skipped = _without_running("b", plan, store, "r", RunState(outcomes={"a": Outcome(state=state)}))
    assert skipped == Outcome(state="skipped", message=f"needs a, which {words}")
