"""What becomes of the stages behind one that did not finish; when the executor asks for GPUs."""

from __future__ import annotations

import pytest

from pipeline.errors import RecipeError
from pipeline.executors import local
from pipeline.graph import build_graph
from pipeline.job import Outcome
from pipeline.plan import make_plan
from pipeline.recipe import load_recipe
from pipeline.runner import RunState, _without_running, make_job
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


def test_gpus_are_looked_up_only_for_a_stage_that_wants_one(toys: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(local, "visible_gpus", lambda: asked.append(1) or [])
    executor = local.LocalExecutor(jobs=1)
    store = Store(toys.root)
    recipe = toys.recipe("name: r\nstages:\n  a: {stage: toy.write, text: a}\n")
    nodes = build_graph(load_recipe(recipe))
    executor.check(nodes.values())
    monkeypatch.chdir(toys.root)
    job = make_job(make_plan(nodes, store, "r"), "a", store, "r", offline=True, force=False, cores=1)
    assert executor.submit(job).result().state == "done"
    executor.shutdown()
    assert not asked
    wanting = build_graph(load_recipe(recipe, ["stages.a.launch.gpus=1"]))
    for _ in range(2):
        with pytest.raises(RecipeError, match="this machine has 0"):
            executor.check(wanting.values())
    assert len(asked) == 1


EXACT = """
    import os


    def run(config, context):
        if config.text == "fail":
            raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation")
        found = (context.deterministic, os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        (context.directory / "out.txt").write_text(repr(found))
"""


@pytest.mark.slow
def test_deterministic_algorithms_reach_the_stage_and_its_failure_says_what_to_set(project: Project) -> None:
    project.stage("exact", EXACT)
    project.recipe("""
        name: r
        stages:
          a: {stage: toy.exact, text: a, launch: {deterministic: true}}
          b: {stage: toy.exact, text: b}
          c: {stage: toy.exact, text: fail, launch: {deterministic: true}}
          d: {stage: toy.exact, text: fail, seed: 1}
    """)
    told = "".join(project.start("run", "recipe.yaml").communicate(timeout=120))
    assert (project.root / "runs/r/a/out.txt").read_text() == "(True, ':4096:8')"
    assert (project.root / "runs/r/b/out.txt").read_text() == "(False, None)"
    assert "Set stages.c.launch.deterministic=false" in told
    assert "stages.d.launch" not in told
