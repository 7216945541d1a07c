"""Bad recipes: one message that names file, line, key, rule and the nearest valid keys; exit code 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.graph import build_graph
from pipeline.recipe import load_recipe
from pipeline.strict_yaml import load_yaml, parse_scalar
from tests.engine.conftest import ROOT, SHARED, WRITE, Project

HEAD = "name: r\nstages:\n"
GOOD = "  a: {stage: toy.write, text: a}\n"
CIRCLE = "".join(f"  {a}: {{stage: toy.write, text: x, needs: {{upstream: {b}}}}}\n" for a, b in ("ab", "ba"))
BAD = {
    "unknown key of a stage": (HEAD + "  a: {stage: toy.write, text: a, sise: 4}\n", "recipe.yaml:3", "did you mean 'size'"),
    "unknown key of the recipe": (HEAD + GOOD + "seeds: 3\n", "recipe.yaml:4", "did you mean 'seed'"),
    "wrong type": (HEAD + "  a: {stage: toy.write, text: a, size: '4'}\n", "recipe.yaml:3", "valid integer"),
    "a number for a text": (HEAD + "  a: {stage: toy.write, text: 4}\n", "recipe.yaml:3", "valid string"),
    "missing value": (HEAD + "  a: {stage: toy.write}\n", "recipe.yaml:3", "'text' is missing"),
    "duplicate key": (HEAD + GOOD + GOOD, "recipe.yaml:4", "stands twice (first in line 3)"),
    "tab": (HEAD + "\ta: 1\n", "recipe.yaml:3", "never tabs"),
    "empty": ("", "recipe.yaml", "empty"),
    "only a comment": ("# nothing\n", "recipe.yaml", "empty"),
    "a list": ("- a\n", "recipe.yaml:1", "mapping"),
    "no stages": ("name: r\n", "recipe.yaml", "names no stage"),
    "no name": ("stages:\n" + GOOD, "recipe.yaml", "name"),
    "a name with a path": ("name: ../r\nstages:\n" + GOOD, "recipe.yaml:1", "lower-case letters"),
    "cycle": (HEAD + CIRCLE, "recipe.yaml", "circle"),
    "self reference": (HEAD + "  a: {stage: toy.write, text: a, needs: {upstream: a}}\n", "recipe.yaml", "circle"),
    "missing upstream": (HEAD + GOOD + "  b: {stage: toy.write, text: b, needs: {upstream: aa}}\n", "recipe.yaml:4", "did you mean 'a'"),
    "unknown role": (HEAD + GOOD + "  b: {stage: toy.write, text: b, needs: {upstreem: a}}\n", "recipe.yaml:4", "did you mean 'upstream'"),
    "unknown stage": (HEAD + "  a: {stage: toy.wriet}\n", "recipe.yaml:3", "cannot be imported"),
    "not a dotted name": (HEAD + "  a: {stage: ../toy}\n", "recipe.yaml:3", "name a package"),
    "matrix and value": (HEAD + "  a: {stage: toy.write, text: a, matrix: {text: [b]}}\n", "recipe.yaml:3", "keep one"),
    "empty matrix": (HEAD + "  a: {stage: toy.write, text: a, matrix: {size: []}}\n", "recipe.yaml:3", "different plain values"),
    "launch": (HEAD + "  a: {stage: toy.write, text: a, launch: {processes: 0}}\n", "recipe.yaml:3", "launch.processes is 0"),
    "unknown launch key": (HEAD + "  a: {stage: toy.write, text: a, launch: {process: 1}}\n", "recipe.yaml:3", "did you mean 'processes'"),
    "several processes, one's work": (HEAD + "  a: {stage: toy.write, text: a, launch: {processes: 2}}\n", "recipe.yaml:3", "in one process"),
    "more GPUs than processes": (HEAD + "  a: {stage: toy.write, text: a, launch: {gpus: 2}}\n", "recipe.yaml:3", "set launch.gpus to 1"),
    "negative seed": ("name: r\nseed: -1\nstages:\n" + GOOD, "recipe.yaml:2", "whole number"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recipe_is_refused_with_place_and_rule(name: str, toys: Project) -> None:
    text, place, rule = BAD[name]
    path = toys.root / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        build_graph(load_recipe(path))
    assert place in str(caught.value)
    assert rule in str(caught.value)


ACCELERATE = {
    "missing": (None, "there is no such file"),
    "a list": ("- a\n", "the document must be a mapping"),
    "not YAML": ("a: [\n", "not valid YAML"),
    "empty": ("", "the file is empty"),
    "not text": ("\ud800", "cannot be read as text"),
    "DeepSpeed": ("distributed_type: DEEPSPEED\n", "distributed_type: DEEPSPEED: stages save"),
    "Megatron": ("distributed_type: MEGATRON_LM\n", "distributed_type: MEGATRON_LM: stages train"),
    "dynamo": ("dynamo_config: {dynamo_backend: INDUCTOR}\n", "dynamo_backend: INDUCTOR: a stage decides itself"),
    "dynamo, the old way": ("dynamo_backend: EAGER\n", "dynamo_backend: EAGER: a stage decides itself"),
}


def launched(toys: Project, launch: str) -> None:
    toys.stage("share", WRITE, SHARED)
    build_graph(load_recipe(toys.recipe(f"{HEAD}  a: {{stage: toy.share, text: a, launch: {{{launch}}}}}\n")))


@pytest.mark.parametrize("name", ACCELERATE)
def test_a_file_for_accelerate_that_cannot_work_is_refused_before_anything_runs(
    name: str, toys: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, rule = ACCELERATE[name]
    monkeypatch.chdir(toys.root)
    if content is not None:
        (toys.root / "own.yaml").write_bytes(content.encode("utf-8", errors="surrogatepass"))
    with pytest.raises(RecipeError) as caught:
        launched(toys, "processes: 2, accelerate_config: own.yaml")
    assert "recipe.yaml:3: stage 'a': launch.accelerate_config" in str(caught.value)
    assert rule in str(caught.value)


def test_a_file_for_accelerate_with_one_process_would_be_ignored(toys: Project) -> None:
    with pytest.raises(RecipeError, match="launch.processes is 1: one process runs without Accelerate's launcher"):
        launched(toys, f"accelerate_config: {ROOT / 'configs/launch/cpu_2.yaml'}")


def test_launch_settings_that_work_are_taken(toys: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toys.root)
    (toys.root / "own.yaml").write_text("distributed_type: FSDP\ndynamo_config: {dynamo_backend: 'NO'}\n")
    for launch in ("processes: 2, gpus: 2, accelerate_config: own.yaml", "processes: 2", "gpus: 1"):
        launched(toys, launch)
    with pytest.raises(RecipeError, match="set launch.gpus to 2, or to 0 for the CPU, or launch.processes to 4"):
        launched(toys, "processes: 2, gpus: 4")


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("stages.b.text=x", "no stage 'b'"),
        ("stages.a", "write stages.NAME.KEY=VALUE"),
        ("stage.a.text=x", "must begin with 'stages.'"),
        ("stages.a.size=many", "valid integer"),
        ("stages.a.text.more=x", "not a mapping"),
        ("stages.a.txt=x", "did you mean 'text'"),
    ],
)
def test_a_bad_override_is_refused(override: str, rule: str, toys: Project) -> None:
    path = toys.root / "recipe.yaml"
    path.write_text(HEAD + GOOD)
    with pytest.raises(RecipeError, match=re.escape(rule)):
        build_graph(load_recipe(path, [override]))


def test_two_overrides_of_one_key_are_refused(toys: Project) -> None:
    path = toys.root / "recipe.yaml"
    path.write_text(HEAD + GOOD)
    with pytest.raises(RecipeError, match=r"stages\.a\.size is set twice, to '7' and to '8'; keep one"):
        load_recipe(path, ["stages.a.size=7", "seed=5", "stages.a.size=8"])


def test_an_override_changes_the_value(toys: Project) -> None:
    path = toys.root / "recipe.yaml"
    path.write_text(HEAD + GOOD)
    nodes = build_graph(load_recipe(path, ["stages.a.size=7", "stages.a.launch.threads=2", "seed=5"]))
    assert nodes["a"].config.size == 7
    assert nodes["a"].config.seed == 5
    assert nodes["a"].launch.threads == 2


def test_a_wrong_kind_of_input_names_both(toys: Project) -> None:
    from tests.engine.conftest import CONFIG, WRITE

    toys.stage("picture", WRITE, CONFIG.replace('"text"\n', '"picture"\n', 1))
    path = toys.root / "recipe.yaml"
    path.write_text(HEAD + "  p: {stage: toy.picture, text: p}\n  a: {stage: toy.write, text: a, needs: {upstream: p}}\n")
    with pytest.raises(RecipeError, match="takes text, but 'p' makes picture"):
        build_graph(load_recipe(path))


def test_a_matrix_makes_one_node_for_each_cell_and_feeds_them_all(toys: Project) -> None:
    path = toys.root / "recipe.yaml"
    path.write_text(
        HEAD
        + "  a: {stage: toy.write, matrix: {seed: [0, 1], text: [x, y]}}\n"
        + "  b: {stage: toy.write, text: b, needs: {upstream: a}}\n"
    )
    nodes = build_graph(load_recipe(path))
    cells = [f"a@seed={seed},text={text}" for seed in (0, 1) for text in "xy"]
    assert list(nodes) == [*cells, "b"]
    assert nodes["b"].needs == {"upstream": tuple(cells)}


def test_a_recipe_may_lie_under_a_unicode_path_with_spaces(toys: Project) -> None:
    folder = toys.root / "mes recettes é你"
    folder.mkdir()
    (folder / "r.yaml").write_text(HEAD + GOOD)
    assert list(build_graph(load_recipe(folder / "r.yaml"))) == ["a"]


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_an_unreadable_recipe_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match="cannot be read|no such recipe"):
        load_recipe(path)


def test_a_bad_recipe_exits_with_2_and_one_message(project: Project) -> None:
    project.recipe(HEAD + "  a: {stage: toy.write, text: a, sise: 4}\n")
    assert project.groundup("plan", "recipe.yaml", code=2).count("\n") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("no", "no"),
        ("0x10", 16),
        ("true", True),
        ("~", None),
        ("1_000", "1_000"),
        ("[1, a]", [1, "a"]),
        ("", ""),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert parse_scalar(text) == value


def test_yaml_that_refers_to_itself_is_refused() -> None:
    with pytest.raises(RecipeError, match="itself"):
        load_yaml("a: &x [*x]", name="r")


@pytest.mark.slow
def test_yaml_that_grows_without_bound_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(RecipeError, match="too many"):
        load_yaml("\n".join(lines), name="r")
