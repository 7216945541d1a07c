"""Exactly what is stale runs again: a table of edits and what each causes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import CONFIG, ROOT, WRITE, Project

RECIPE = """
name: edits
seed: 1
stages:
  a: {stage: toy.write, text: a, file: data.txt}
  b: {stage: toy.other, needs: {upstream: a}, text: b}
  c: {stage: toy.write, text: c}
  d: {stage: toy.carded, text: d}
"""
CARD = """---
license: other
license_name: house-rules
pretty_name: Toy
groundup:
  template: one
---
Prose.
"""
CARDED = CONFIG.replace("[LocalFiles((self.file,))] if self.file else []", '[CardUse("toy")]').replace("LocalFiles", "CardUse")


def _replace(path: str, old: str, new: str) -> Callable[[Project], None]:
    def edit(project: Project) -> None:
        text = (project.root / path).read_text()
        assert old in text
        (project.root / path).write_text(text.replace(old, new))

    return edit


def _move_data(project: Project) -> None:
    (project.root / "data.txt").rename(project.root / "moved.txt")
    _replace("recipe.yaml", "data.txt", "moved.txt")(project)


def _same_size_same_time(project: Project) -> None:
    """Other content, equal size, restored time stamp: only the inode's change time could tell."""
    import os

    project.groundup("plan", "recipe.yaml")  # remembers the hash of the file as it lies here
    path = project.root / "data.txt"
    stat = path.stat()
    replacement = project.root / "new.txt"
    replacement.write_text("DATA")
    os.utime(replacement, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    replacement.rename(path)


_CARD = "code/data_cards/toy.md"
EDITS: dict[str, tuple[Callable[[Project], None], set[str], str]] = {
    "nothing": (lambda project: None, set(), ""),
    "a value in the recipe": (_replace("recipe.yaml", "text: a,", "text: A,"), {"a", "b"}, 'text: "a" -> "A"'),
    "a default": (_replace("toy/write/config.py", "size: int = 3", "size: int = 4"), {"a", "b", "c"}, "size: 3 -> 4"),
    "a comment in code": (_replace("toy/write/run.py", "def run", "# why\ndef run"), set(), ""),
    "a docstring and white space": (_replace("toy/write/run.py", "context):", 'context):\n    "It writes."\n'), set(), ""),
    "code": (_replace("toy/other/run.py", '"length"', '"size"'), {"b"}, "code: toy/other/run.py was changed"),
    "code of an imported module": (_replace("toy/helper.py", "1", "2"), {"b"}, "code: toy/helper.py was changed"),
    "content at the same path": (_replace("data.txt", "data", "more data"), {"a", "b"}, "source: the content of the files"),
    "content, same size and time": (_same_size_same_time, {"a", "b"}, "source: the content of the files"),
    "a data file renamed": (_move_data, set(), ""),
    "the seed": (_replace("recipe.yaml", "seed: 1", "seed: 2"), {"a", "b", "c", "d"}, "seed: 1 -> 2"),
    "launch settings": (_replace("recipe.yaml", "text: c", "text: c, launch: {threads: 1, grace_seconds: 5}"), set(), ""),
    "what a card says about reading": (_replace(_CARD, "template: one", "template: two"), {"d"}, "source: card toy, use changed"),
    "the licence in a card": (_replace(_CARD, "license: other", "license: mit"), {"d"}, "source: card toy, license changed"),
    "the name of a licence in a card": (
        _replace(_CARD, "house-rules", "other-rules"),
        {"d"},
        "source: card toy, license changed",
    ),
    "what a card tells the Hub alone": (_replace(_CARD, "pretty_name: Toy", "pretty_name: Toys"), set(), ""),
    "the prose of a card": (_replace(_CARD, "Prose.", "Other prose."), set(), ""),
    "the name of the recipe": (_replace("recipe.yaml", "name: edits", "name: renamed"), set(), ""),
    "the name of a stage": (_replace("recipe.yaml", "  c: {", "  renamed: {"), set(), ""),
    "a stage that nobody needs": (_replace("recipe.yaml", "  c:", "  x: {stage: toy.write, text: x}\n  c:"), {"x"}, "text"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose recipe was run once, by an engine of its own with one card: cards lie beside the engine."""
    project = Project(tmp_path_factory.mktemp("project"))
    shutil.copytree(ROOT / "pipeline", project.root / "code" / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (project.root / "code" / "data_cards").mkdir()
    (project.root / "code" / "data_cards" / "toy.md").write_text(CARD)
    project.environment["PYTHONPATH"] = "code"
    project.stage("carded", WRITE, CARDED)
    project.recipe(RECIPE)
    (project.root / "data.txt").write_text("data")
    project.stage("other", "from toy.helper import NUMBER\n" + _dedented(WRITE))
    (project.root / "toy" / "helper.py").write_text("NUMBER = 1\n")
    project.groundup("run", "recipe.yaml")
    return project


def _dedented(text: str) -> str:
    import textwrap

    return textwrap.dedent(text)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_makes_exactly_these_stages_run(name: str, finished: Project, tmp_path: Path) -> None:
    edit, stale, cause = EDITS[name]
    project = finished.copy(tmp_path / "copy")
    edit(project)
    plan = json.loads(project.groundup("plan", "recipe.yaml", "--json"))
    assert {row["name"] for row in plan if row["state"] != "cached"} == stale
    causes = [text for row in plan for text in row["causes"]]
    assert any(cause in text for text in causes) or not stale, causes


@pytest.mark.slow
def test_the_seed_counts_only_where_the_config_declares_one(project: Project) -> None:
    project.stage("seedless", WRITE, CONFIG.replace("        seed: int = 0\n", ""))
    project.recipe("name: r\nseed: 1\nstages:\n  a: {stage: toy.seedless, text: a}\n")
    project.groundup("run", "recipe.yaml")
    project.recipe("name: r\nseed: 2\nstages:\n  a: {stage: toy.seedless, text: a}\n")
    assert "nothing to run" in project.groundup("plan", "recipe.yaml")


def test_an_upstream_change_names_the_input(finished: Project) -> None:
    plan = json.loads(finished.groundup("plan", "recipe.yaml", "stages.a.text=other", "--json"))
    (b,) = [row for row in plan if row["name"] == "b"]
    assert b["causes"][0].startswith("input upstream: ")


def test_only_limits_the_plan_to_a_stage_and_what_it_lacks(finished: Project) -> None:
    plan = json.loads(finished.groundup("plan", "recipe.yaml", "--only", "b", "--json"))
    assert [row["name"] for row in plan] == ["a", "b"]


@pytest.mark.slow
def test_a_report_says_what_was_made_from_other_inputs_than_those_shown(finished_diamond: Project) -> None:
    def earlier() -> int:
        page = (finished_diamond.root / "runs/diamond/report.md").read_text()
        assert page.count("Of an earlier run") == page.count("**earlier run**")
        return page.count("Of an earlier run")

    assert earlier() == 0
    finished_diamond.groundup("run", "recipe.yaml", "stages.a.size=9", "--only", "b")
    assert earlier() == 2  # c read another a, and d read that c
    finished_diamond.groundup("run", "recipe.yaml", "stages.a.size=9")
    assert earlier() == 0


def test_two_recipes_share_artifacts(finished_diamond: Project) -> None:
    finished_diamond.recipe(
        (finished_diamond.root / "recipe.yaml").read_text().replace("name: diamond", "name: other"), "other.yaml"
    )
    finished_diamond.groundup("run", "other.yaml")
    assert finished_diamond.ran() == []
    assert (finished_diamond.root / "runs/other/d/out.txt").read_text() == "dbaca"


@pytest.mark.slow
def test_keep_adopts_an_artifact_that_differs_in_code_only_and_writes_it_down(finished_diamond: Project) -> None:
    _replace("toy/write/run.py", '"length"', '"size"')(finished_diamond)
    finished_diamond.groundup("run", "recipe.yaml", "--keep", "a", "--keep", "b", "--keep", "c", "--keep", "d")
    assert finished_diamond.ran() == []
    record = json.loads(finished_diamond.groundup("show", "runs/diamond/a", "--json"))
    (adoption,) = record["adopted"]
    assert adoption["code_before"] != adoption["code_after"]
    plan = json.loads(finished_diamond.groundup("plan", "recipe.yaml", "--json"))
    assert [row["state"] for row in plan] == ["adopted"] * 4, "the adoption holds without the flag"
    page = (finished_diamond.root / "runs/diamond/report.html").read_text()
    assert "was adopted" in page
    assert "Of an earlier run" not in page


def test_keep_refuses_when_more_than_code_differs(finished_diamond: Project) -> None:
    told = finished_diamond.groundup("run", "recipe.yaml", "stages.a.size=9", "--keep", "a", code=2)
    assert "size: 3 -> 9" in told


@pytest.mark.slow
def test_force_runs_a_cached_stage_again(finished_diamond: Project) -> None:
    finished_diamond.groundup("run", "recipe.yaml", "--force", "a")
    assert finished_diamond.ran() == ["a"]
