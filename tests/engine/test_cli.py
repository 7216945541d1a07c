"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.artifacts import named
from tests.engine.conftest import CONFIG, SHARED, WRITE, Project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose recipe of two stages was run."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.recipe(
        "name: r\nseed: 1\nstages:\n  a: {stage: toy.write, text: a}\n  b: {stage: toy.write, text: b, needs: {upstream: a}}\n"
    )
    project.groundup("run", "recipe.yaml")
    return project


def test_run_with_nothing_to_do_says_so_and_where_the_report_is(finished: Project) -> None:
    told = finished.groundup("run", "recipe.yaml")
    assert "2 cached" in told
    assert "runs/r/report.html" in told


def test_run_prints_json_on_request(finished: Project) -> None:
    page = finished.root / "runs/r/report.html"
    page.unlink()
    out, err = finished.start("run", "recipe.yaml", "--json").communicate(timeout=120)
    assert {name: outcome["state"] for name, outcome in json.loads(out).items()} == {"a": "cached", "b": "cached"}
    assert err == "report:  runs/r/report.html\n"
    assert page.exists(), "as without --json"


def test_status_tells_what_is_done_and_what_waits(finished: Project) -> None:
    rows = json.loads(finished.groundup("status", "recipe.yaml", "--json"))["r"]
    assert [(row["name"], row["state"]) for row in rows] == [("a", "done"), ("b", "done")]
    assert "done" in finished.groundup("status")


@pytest.mark.slow
def test_status_keeps_long_names_apart_from_their_states(finished_one: Project) -> None:
    project, name = finished_one, "a-name-that-is-longer-than-most-others"
    project.recipe(f"name: long\nstages:\n  {name}: {{stage: toy.write, text: a, seed: 1}}\n", "long.yaml")
    project.groundup("run", "long.yaml")
    told = project.groundup("status").splitlines()
    assert any(line.startswith(f"  {name}  done ") for line in told), told
    assert any(line.startswith(f"  {'a':<{len(name)}}  done ") for line in told), "one column for all"


def test_status_of_an_unknown_recipe_names_the_known(finished: Project) -> None:
    assert "did you mean 'r'" in finished.groundup("status", "rr", code=2)


@pytest.mark.slow
def test_logs_show_what_a_stage_printed(project: Project) -> None:
    project.stage(
        "talk",
        "def run(config, context):\n    print('hello from inside')\n    context.section.describe(title='t', idea='i')\n",
        CONFIG,
    )
    project.recipe("name: r\nstages:\n  a: {stage: toy.talk, text: a}\n")
    project.groundup("run", "recipe.yaml")
    assert "loading libraries" in (project.root / "runs/r/a/events.jsonl").read_text(), "before it can tell anything itself"
    assert "hello from inside" in project.groundup("logs", "recipe.yaml", "a")
    assert "did you mean 'a'" in project.groundup("logs", "recipe.yaml", "aa", code=2)


@pytest.mark.slow
def test_show_prints_record_metrics_and_inputs(finished: Project) -> None:
    told = finished.groundup("show", "runs/r/b")
    assert "length" in told
    assert "upstream" in told
    fingerprint = json.loads(finished.groundup("show", "runs/r/b", "--json"))["fingerprint"]
    assert fingerprint in finished.groundup("show", fingerprint[:10])
    assert "names no artifact" in finished.groundup("show", "abc", code=2)


@pytest.mark.slow
def test_a_folder_is_looked_for_here_and_in_the_store_and_never_guessed(finished: Project, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    store = f"--store={finished.root}"
    fingerprint = json.loads(finished.groundup("show", "runs/r/b", "--json"))["fingerprint"]

    def show(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "pipeline", "show", *arguments]
        done = subprocess.run(command, cwd=away, env=finished.environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert fingerprint in show("runs/r/b", store)
    assert "no folder has that name, here or in the store" in show("runs/r/c", store, code=2)
    (away / "runs" / "r").mkdir(parents=True)
    (away / "runs" / "r" / "b").symlink_to((finished.root / "runs/r/b").resolve())
    assert fingerprint in show("runs/r/b", store)
    (away / "runs" / "r" / "b").unlink()
    (away / "runs" / "r" / "b").mkdir()
    assert fingerprint in show("runs/r/b", store), "a folder that is no artifact is in nobody's way"
    (away / "runs" / "r" / "b").rmdir()
    (away / "runs" / "r" / "b").symlink_to((finished.root / "runs/r/a").resolve())
    assert "is one artifact here" in show("runs/r/b", store, code=2)


def test_figures_of_several_models_keep_their_names_apart() -> None:
    rows = [
        {"name": "error", "split": "test", "label": "vae", "title": "16 labels"},
        {"name": "error", "split": "test", "label": "vae", "title": "4 labels"},
        {"name": "error", "split": "test", "label": "cnn"},
        {"name": "size", "split": None},
        {"name": "size", "split": None},
    ]
    assert list(named(rows)) == [
        "vae: error (test), 16 labels",
        "vae: error (test), 4 labels",
        "cnn: error (test)",
        "size, row 4",
        "size, row 5",
    ]


def test_a_record_holds_no_path_and_no_host(finished: Project) -> None:
    import platform

    text = (finished.root / "runs/r/b/record.json").read_text()
    assert str(finished.root) not in text
    assert platform.node() not in text


def test_diff_names_the_field_and_the_metric(finished: Project) -> None:
    told = finished.groundup("diff", "runs/r/a", "runs/r/b")
    assert 'text: "a" -> "b"' in told
    assert "length: 1 -> 2" in told


@pytest.mark.slow
def test_gc_shows_first_and_removes_only_what_no_run_uses(finished_one: Project) -> None:
    project = finished_one
    project.groundup("run", "recipe.yaml", "stages.a.text=b")
    assert "1 unused" in project.groundup("gc")
    assert "1 unused" in project.groundup("gc", "--delete")
    assert "0 unused" in project.groundup("gc")
    assert (project.root / "runs/r/a/out.txt").read_text() == "b"


@pytest.mark.slow
def test_one_stage_runs_alone_with_its_keys_as_flags(project: Project) -> None:
    fields = '"""What to write, in 100% of cases."""\n        max_size: int | None = None\n        """Most characters."""'
    project.stage("write", WRITE, CONFIG.replace("text: str", f"text: str\n        {fields}"))
    (project.root / "toy/write/__main__.py").write_text("from pipeline.contract import stage_main\nstage_main(__package__)\n")

    def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "toy.write", *arguments]
        environment = project.environment | {"HOME": str(project.root)}
        return subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)

    done = alone("--text", "alone", "--size", "5")
    assert done.returncode == 0, done.stderr
    path = project.root / done.stdout.strip()
    assert (path / "out.txt").read_text() == "alone"
    again = alone("--text", "alone", "--size", "5")
    assert "write: done" in done.stderr, "it shows how far it is"
    assert (again.stdout, again.stderr) == (done.stdout, "")
    assert project.ran() == ["alone"]
    assert "valid integer" in alone("--text", "x", "--size", "many").stderr
    told = " ".join(alone("--help").stdout.split())
    assert "--text VALUE What to write, in 100% of cases. (required)" in told
    assert "--max-size VALUE Most characters. (default: null)" in told
    assert told.count("max-size") == told.count("max_size") + 2, "the usage and the list name one spelling"
    assert "valid integer" in alone("--text", "x", "--max_size", "many").stderr
    assert alone("--text", "x", "--processes", "2").stderr.startswith("toy.write: launch.processes is 2, but toy.write does all")
    at_home = alone("--text", "alone", "--store=~/runs")
    assert at_home.stdout.startswith(str(project.root / "runs")), at_home.stderr
    recipe = "name: r\nseed: 0\nstages:\n  a: {stage: toy.write, text: alone, size: 5}\n"
    project.recipe(recipe)
    assert "nothing to run" in project.groundup("plan", "recipe.yaml"), "a recipe finds what was made alone"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--processes", "0"], "--processes is 0: input should be greater than or equal to 1; 1 is the default"),
        (["--gpus", "-1"], "--gpus is -1: input should be greater than or equal to 0; 0 is the default"),
        (["--gpus", "3"], "--gpus is 3, but this machine has 2; leave it out to run on the CPU"),
    ],
    ids=["no process", "less than no GPU", "more GPUs than there are"],
)
def test_a_stage_alone_refuses_processes_and_gpus_in_words(flags: list[str], words: str, project: Project) -> None:
    (project.root / "toy/write/__main__.py").write_text("from pipeline.contract import stage_main\nstage_main(__package__)\n")
    command = [sys.executable, "-m", "toy.write", "--text", "a", *flags]
    environment = project.environment | {"CUDA_VISIBLE_DEVICES": "0,1"}
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"toy.write: {words}\n")


@pytest.mark.slow
def test_a_stage_outside_the_checkout_needs_no_registration(project: Project) -> None:
    project.stage("mine", WRITE, CONFIG)
    project.recipe("name: r\nstages:\n  a: {stage: toy.mine, text: a}\n")
    project.groundup("run", "recipe.yaml")
    assert project.ran() == ["a"]


@pytest.mark.slow
def test_text_from_data_cannot_become_markup_in_the_report(project: Project) -> None:
    project.recipe("name: r\nstages:\n  a: {stage: toy.write, text: '<script>alert(1)</script>'}\n")
    project.groundup("run", "recipe.yaml")
    page = (project.root / "runs/r/report.html").read_text()
    assert "<script" not in page
    assert "&lt;script" in page


@pytest.mark.parametrize("arguments", [["run"], ["fly"], ["run", "r.yaml", "--jobs", "0"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str], project: Project) -> None:
    assert "usage" in project.groundup(*arguments, code=2)


def test_more_gpus_than_there_are_is_an_error_with_the_override_that_works(project: Project) -> None:
    project.stage("share", WRITE, SHARED)
    project.recipe("name: r\nstages:\n  a: {stage: toy.share, text: a, launch: {gpus: 99, processes: 99}}\n")
    told = project.groundup("run", "recipe.yaml", code=2, CUDA_VISIBLE_DEVICES="0,1")
    assert "this machine has 2; set stages.a.launch.gpus=2 stages.a.launch.processes=2" in told
    project.groundup("plan", "recipe.yaml", "stages.a.launch.gpus=2", "stages.a.launch.processes=2")


def test_status_takes_no_folder_of_the_same_name_for_the_recipe(finished: Project) -> None:
    (finished.root / "r").mkdir()
    assert "done" in finished.groundup("status")
    assert "done" in finished.groundup("status", "r")


@pytest.mark.parametrize("note", ['{"cut', *(pytest.param(note, marks=pytest.mark.slow) for note in ("{}", "[]"))])
def test_a_note_that_cannot_be_read_is_named_and_nothing_is_collected(project: Project, note: str) -> None:
    (project.root / "runs/r").mkdir(parents=True)
    (project.root / "runs/r/run.json").write_text(note)
    for command in (["gc", "--delete"], ["status"], ["logs", "r", "a"], ["report", "r"]):
        assert "runs/r/run.json cannot be read" in project.groundup(*command, code=2)


def test_what_is_no_artifact_is_said_to_be_none(finished: Project) -> None:
    assert "folder without record.json" in finished.groundup("show", "toy", code=2)
    assert "that is too short" in finished.groundup("show", "", code=2)
    assert "no fingerprint in this store begins so" in finished.groundup("show", "ffffffffffff", code=2)


@pytest.mark.slow
def test_artifacts_without_a_metric_in_common_are_not_called_equal(project: Project) -> None:
    project.stage("other", WRITE.replace('"length"', '"breadth"'))
    project.recipe("name: r\nstages:\n  a: {stage: toy.write, text: a}\n  b: {stage: toy.other, text: a}\n")
    project.groundup("run", "recipe.yaml")
    assert "none in common" in project.groundup("diff", "runs/r/a", "runs/r/b")


def test_a_tilde_in_a_path_is_the_home_folder(finished: Project) -> None:
    home = str(finished.root)
    assert "done" in finished.groundup("status", "--store=~", HOME=home)
    assert "done" in finished.groundup("status", "~/recipe.yaml", HOME=home)
    assert "length" in finished.groundup("show", "~/runs/r/a", HOME=home)
    assert not (finished.root / "~").exists()


def test_too_few_gpus_are_told_before_anything_runs(project: Project) -> None:
    project.recipe(
        "name: r\nstages:\n  a: {stage: toy.write, text: a}\n"
        "  b: {stage: toy.write, text: b, needs: {upstream: a}, launch: {gpus: 1}}\n"
    )
    told = project.groundup("run", "recipe.yaml", code=2, CUDA_VISIBLE_DEVICES="")
    assert "this machine has 0; set stages.b.launch.gpus=0" in told
    assert project.ran() == []


@pytest.mark.slow
def test_a_command_that_goes_on_can_be_typed(project: Project) -> None:
    project.stage(
        "fail", "from pipeline.errors import StageError\n\ndef run(config, context):\n    raise StageError('no')\n", CONFIG
    )
    project.recipe("name: r\nstages:\n  a: {stage: toy.fail, text: a}\n")
    told = project.groundup("run", "recipe.yaml", code=1, PATH="")
    assert f"go on with:  {sys.executable} -m pipeline run recipe.yaml" in told
    assert f"whole log:  {sys.executable} -m pipeline logs recipe.yaml a --store ." in told


@pytest.mark.slow
def test_a_stage_that_only_leaves_out_cannot_be_forced_or_kept(finished: Project) -> None:
    for flag in ("--force", "--keep"):
        told = finished.groundup("plan", "recipe.yaml", "--only", "a", flag, "b", code=2)
        assert f"{flag} b: --only a does not need 'b'" in told
    assert "no stage 'c'" in finished.groundup("plan", "recipe.yaml", "--only", "a", "--force", "c", code=2)
    assert "forced" in finished.groundup("plan", "recipe.yaml", "--only", "b", "--force", "a")


def test_a_plan_on_a_new_store_creates_nothing(finished: Project) -> None:
    assert "2 of 2 stages to run" in finished.groundup("plan", "recipe.yaml", "--store", "new")
    assert not (finished.root / "new").exists()


@pytest.mark.slow
def test_an_unknown_recipe_names_those_beside_it_and_in_configs(finished: Project) -> None:
    (finished.root / "configs").mkdir()
    (finished.root / "configs/small.yaml").touch()
    assert "did you mean 'recipe.yaml'" in finished.groundup("plan", "recip.yaml", code=2)
    assert "did you mean 'configs/small.yaml'" in finished.groundup("plan", "small.yaml", code=2)
    assert "known: configs/small.yaml, recipe.yaml" in finished.groundup("plan", "xyz", code=2)
