"""Any kill at any moment loses nothing: run again, and the result is that of an uninterrupted run, made by one writer."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifact import Record, differences
from pipeline.process import descendants, wait_gone
from pipeline.store import Store
from tests.engine.conftest import CONFIG, ROOT, SHARED, Project

TRAIN = """
    import hashlib
    import json
    import time
    from pathlib import Path

    from pipeline.contract import write_json


    def run(config, context):
        state, start = "", 0
        for path in sorted(context.checkpoints.glob("step-*.json"))[-1:]:
            saved = json.loads(path.read_text())
            state, start = saved["state"], saved["step"]
        context.events.rewind(start)
        for step in range(start + 1, config.size + 1):
            if context.is_main:
                with open(Path(context.directory).parents[2] / "runs.log", "a") as log:
                    log.write(f"{step}\\n")
            state = hashlib.sha256(f"{state}{step}".encode()).hexdigest()
            context.log(step, loss=1 / step)
            context.progress(step, config.size)
            if context.is_main and (step % 2 == 0 or context.stop_requested):
                write_json(context.checkpoints / f"step-{step:04}.json", {"step": step, "state": state})
            context.check_stop()
            if not (Path(context.directory).parents[2] / "hurry").exists():
                time.sleep(float(config.text))
        if context.is_main:
            (context.directory / "out.txt").write_text(state)
"""


def expected(steps: int) -> str:
    """State after an uninterrupted run."""
    state = ""
    for step in range(1, steps + 1):
        state = hashlib.sha256(f"{state}{step}".encode()).hexdigest()
    return state


@pytest.fixture
def training(project: Project) -> Project:
    """A project whose one stage trains for six steps, saves every second one, and has a stage that needs it."""
    project.stage("train", TRAIN, SHARED)
    project.recipe(
        """
        name: r
        stages:
          t: {stage: toy.train, text: '0', size: 6}
          u: {stage: toy.write, text: u, needs: {upstream: t}}
        """
    )
    return project


def assert_finished(project: Project, steps: int = 6) -> None:
    """Everything is there once, nothing else lies around, every hash fits, every step is logged once."""
    assert (project.root / "runs/r/t/out.txt").read_text() == expected(steps)
    assert (project.root / "runs/r/u/out.txt").read_text() == "u" + expected(steps)
    events = [json.loads(line) for line in (project.root / "runs/r/t/events.jsonl").read_text().splitlines()]
    losses = [event["step"] for event in events if event["name"] == "loss"]
    assert losses == list(range(1, steps + 1)), "every step is logged once"
    assert not list(project.root.glob("artifacts/*/.*.partial"))
    assert not list(project.root.glob("runs/r/t/checkpoints"))
    store = Store(project.root)
    for path in store.all():
        assert not differences(path, Record.load(path))
    assert len(list(store.all())) == 2


JOB = """
import sys
from pathlib import Path

from pipeline.graph import add_working_directory, build_graph
from pipeline.plan import make_plan
from pipeline.recipe import load_recipe
from pipeline.runner import make_job
from pipeline.store import Store

add_working_directory()
store = Store(Path("."))
plan = make_plan(build_graph(load_recipe(Path("recipe.yaml"))), store, "r")
print(make_job(plan, "t", store, "r", offline=True, force=False, cores=1).model_dump_json())
"""


@pytest.fixture
def job(training: Project) -> str:
    """The job of stage `t`, as the engine hands it to a worker."""
    command = [sys.executable, "-c", JOB]
    return subprocess.run(command, cwd=training.root, env=training.environment, capture_output=True, text=True, check=True).stdout


def work(project: Project, job: str, **environment: str) -> int:
    """Run a real worker on `job`; return its exit code."""
    command = [sys.executable, "-m", "pipeline.worker"]
    return subprocess.run(
        command,
        cwd=project.root,
        env=project.environment | environment,
        input=job,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode


def killed_at(project: Project, job: str, role: str, number: int) -> bool:
    """Kill the worker or its rank at the n-th write, work again, check; False when there is no n-th write."""
    marker = project.root / f"killed-{role}-{number}"
    path = os.pathsep.join([str(ROOT / "tests" / "faults"), str(ROOT)])
    work(project, job, GROUNDUP_TEST_KILL=f"{role}:{number}:{marker}", PYTHONPATH=path)
    if not marker.exists():
        return False
    first = [int(line) for line in project.ran()]
    assert work(project, job) == 0
    second = [int(line) for line in project.ran()]
    (artifact,) = Store(project.root).all()
    assert (artifact / "out.txt").read_text() == expected(6)
    assert not differences(artifact, Record.load(artifact))
    assert not list(project.root.glob("artifacts/*/.*.partial"))
    saved = max([step for step in first if step % 2 == 0], default=0)
    assert not second or min(second) >= min(saved - 1, 5), f"{marker.read_text()}: saved work was done twice: {first} {second}"
    return True


@pytest.mark.parametrize(("role", "number"), [("worker", 10), ("rank", 5)])
def test_a_kill_at_a_write_loses_nothing(role: str, number: int, training: Project, job: str) -> None:
    assert killed_at(training, job, role, number)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ["worker", "rank"])
def test_a_kill_at_each_write_loses_nothing(role: str, training: Project, job: str) -> None:
    kills = 0
    while killed_at(training, job, role, kills + 1):
        kills += 1
        shutil.rmtree(training.root / "artifacts")
    assert kills > 10, "there are more writes than that: the fault was not injected"


def wait_for_step(project: Project, step: int) -> None:
    """Wait until the stage has done `step`."""
    path = project.root / "runs.log"
    deadline = time.monotonic() + 60
    while not (path.exists() and str(step) in path.read_text().split()):
        assert time.monotonic() < deadline, "the stage did not get so far"
        time.sleep(0.02)


def hurry(project: Project) -> None:
    """Let the toy training go on without its pauses."""
    (project.root / "hurry").touch()


@pytest.mark.slow
def test_a_stage_outlives_its_driver_and_the_next_run_takes_the_result(training: Project) -> None:
    process = training.start("run", "recipe.yaml", "stages.t.text='0.2'")
    wait_for_step(training, 2)
    process.kill()
    process.communicate()
    told = training.groundup("run", "recipe.yaml", "stages.t.text='0.2'")
    assert "2 done" in told or "1 cached, 1 done" in told
    assert training.ran() == ["1", "2", "3", "4", "5", "6", "u"], "no step was done twice"
    assert (training.root / "runs/r/t/out.txt").read_text() == expected(6)


@pytest.mark.slow
def test_killing_everything_loses_at_most_the_steps_since_the_last_checkpoint(training: Project) -> None:
    process = training.start("run", "recipe.yaml", "stages.t.text='0.2'")
    wait_for_step(training, 5)
    for victim in descendants([process.pid, *_workers(training)]):
        os.kill(victim.pid, signal.SIGKILL)
    process.communicate()
    assert "resume" in training.groundup("plan", "recipe.yaml", "stages.t.text='0.2'")
    hurry(training)
    training.groundup("run", "recipe.yaml", "stages.t.text='0.2'")
    assert training.ran() == ["1", "2", "3", "4", "5", "5", "6", "u"]


def _workers(project: Project) -> list[int]:
    """Pids that the locks of the store name."""
    return [json.loads(path.read_text())["worker"][0] for path in project.root.glob("artifacts/*/.*.lock")]


@pytest.mark.slow
def test_a_rank_dies_with_its_worker(training: Project) -> None:
    process = training.start("run", "recipe.yaml", "stages.t.text='30'")
    wait_for_step(training, 1)
    (worker,) = _workers(training)
    family = descendants([worker])
    assert len(family) == 2
    os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "SIGKILL" in err
    assert wait_gone(family, 10), "the rank outlived its worker, asleep in a step of 30 seconds"
    training.groundup("run", "recipe.yaml", "stages.t.text='0'", "stages.t.size=6")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_request_to_stop_leaves_a_resumable_state(number: signal.Signals, code: int, training: Project) -> None:
    process = training.start("run", "recipe.yaml", "stages.t.text='0.4'")
    wait_for_step(training, 1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    (command,) = [line.removeprefix("go on with:") for line in out.splitlines() if line.startswith("go on with:")]
    last = int(training.ran()[-1])
    assert last < 6, "it went on to the end as if nothing had been asked"
    hurry(training)
    subprocess.run(shlex.split(command), cwd=training.root, env=training.environment, check=True, capture_output=True)
    assert training.ran() == [*map(str, range(last + 1, 7)), "u"], "no step is lost or done twice"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_alone_that_is_stopped_goes_on_with_the_command_it_names(number: signal.Signals, training: Project) -> None:
    (training.root / "toy/train/__main__.py").write_text("from pipeline.contract import stage_main\nstage_main(__package__)\n")
    command = [sys.executable, "-m", "toy.train", "--text", "'0.4'", "--size", "6"]
    process = subprocess.Popen(
        command, cwd=training.root, env=training.environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    wait_for_step(training, 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "")
    assert "train: running" in err
    assert "Traceback" not in err
    (again,) = [line.removeprefix("go on with:") for line in err.splitlines() if line.startswith("go on with:")]
    last = int(training.ran()[-1])
    assert last < 6, "it went on to the end as if nothing had been asked"
    hurry(training)
    done = subprocess.run(
        shlex.split(again), cwd=training.root, env=training.environment, check=True, capture_output=True, text=True
    )
    assert training.ran() == list(map(str, range(last + 1, 7))), "no step is lost or done twice"
    assert "train: done" in done.stderr
    assert (training.root / done.stdout.strip() / "out.txt").read_text() == expected(6)


NEARLY_DONE = """
    import time
    from pathlib import Path


    def run(config, context):
        if context.is_main:
            with open(Path(context.directory).parents[2] / "runs.log", "a") as log:
                log.write("1\\n")
        deadline = time.monotonic() + 60
        while not context.stop_requested and time.monotonic() < deadline:
            time.sleep(0.02)
        if config.text == "leaves":
            context.interrupt()
        time.sleep(0.5)
        if context.is_main:
            (context.directory / "out.txt").write_text(config.text)
"""


def stopped(project: Project, values: str) -> dict[str, object]:
    """Run one stage, ask it to stop as soon as it has begun, and return its outcome."""
    project.stage("nearly", NEARLY_DONE, SHARED)
    project.recipe(f"name: r\nstages:\n  n: {{stage: toy.nearly, {values}}}\n")
    process = project.start("run", "recipe.yaml", "--json")
    wait_for_step(project, 1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    return dict(json.loads(out)["n"])


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_work_that_ends_while_it_was_asked_to_stop_is_kept(processes: int, project: Project) -> None:
    assert stopped(project, f"text: done, launch: {{processes: {processes}}}")["state"] == "done"
    assert (project.root / "runs/r/n/out.txt").read_text() == "done"
    assert "nothing to run" in project.groundup("plan", "recipe.yaml")


@pytest.mark.slow
def test_a_stage_that_saved_nothing_does_not_claim_to_have(project: Project) -> None:
    outcome = stopped(project, "text: leaves")
    assert (outcome["state"], outcome["exit_code"]) == ("interrupted", 143)
    assert outcome["message"] == "stopped on request; nothing of it is saved, so it begins again"


@pytest.mark.slow
def test_a_silent_stage_is_ended(project: Project) -> None:
    project.stage("hang", "import time\n\n\ndef run(config, context):\n    time.sleep(60)\n", CONFIG)
    project.recipe("name: r\nstages:\n  h: {stage: toy.hang, text: h, launch: {heartbeat_timeout_seconds: 1}}\n")
    began = time.monotonic()
    told = project.groundup("run", "recipe.yaml", code=1)
    assert time.monotonic() - began < 20
    assert "no sign of life" in told


@pytest.mark.slow
def test_two_runs_at_once_do_each_stage_once(diamond: Project) -> None:
    processes = [diamond.start("run", "recipe.yaml") for _ in range(3)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert sorted(diamond.ran()) == ["a", "b", "c", "d"]


@pytest.mark.slow
def test_a_failed_stage_stops_its_dependants_while_siblings_finish(project: Project) -> None:
    project.stage("fail", "def run(config, context):\n    print('on the way')\n    raise ValueError('boom <b>')\n", CONFIG)
    project.recipe(
        """
        name: r
        stages:
          bad: {stage: toy.fail, text: f}
          after: {stage: toy.write, text: x, needs: {upstream: bad}}
          good: {stage: toy.write, text: g}
        """
    )
    process = project.start("run", "recipe.yaml")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "boom <b>" in err
    assert "on the way" in err, "the tail of the log is shown"
    assert project.ran() == ["g"]
    assert "1 failed" in out
    assert "1 skipped" in out


@pytest.mark.slow
def test_a_users_mistake_in_a_stage_keeps_its_exit_code(project: Project) -> None:
    project.stage(
        "fail", "from pipeline.errors import DataError\n\n\ndef run(config, context):\n    raise DataError('row 3')\n", CONFIG
    )
    project.recipe("name: r\nstages:\n  bad: {stage: toy.fail, text: f}\n")
    assert "row 3" in project.groundup("run", "recipe.yaml", code=2)


@pytest.mark.slow
def test_with_two_processes_a_users_mistake_is_shown_without_a_traceback(project: Project) -> None:
    project.stage(
        "fail", "from pipeline.errors import StageError\n\n\ndef run(config, context):\n    raise StageError('row 3')\n", SHARED
    )
    project.recipe("name: r\nstages:\n  bad: {stage: toy.fail, text: f, launch: {processes: 2}}\n")
    process = project.start("run", "recipe.yaml")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "bad: row 3" in error
    assert "| StageError: row 3" in error, "the tail of the log is the rank's own words"


TWO = """
name: r
stages:
  t: {stage: toy.train, text: '0.3', size: 6, launch: {processes: 2}}
  u: {stage: toy.write, text: u, needs: {upstream: t}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["launcher", "rank 0", "rank 1", "worker"])
def test_with_two_processes_any_death_ends_all_and_the_next_run_goes_on(victim: str, training: Project) -> None:
    training.recipe(TWO)
    process = training.start("run", "recipe.yaml")
    wait_for_step(training, 4)
    (worker,) = _workers(training)
    family = descendants([worker])
    os.kill(_pid_of(victim, training, worker), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert wait_gone(family, 10), "some process outlived the others"
    training.groundup("run", "recipe.yaml")
    assert_finished(training)


def _pid_of(victim: str, project: Project, worker: int) -> int:
    if victim == "worker":
        return worker
    if victim == "launcher":
        return next(p.pid for p in descendants([worker]) if "pipeline.ranks" in Path(f"/proc/{p.pid}/cmdline").read_text())
    (path,) = project.root.glob(f"artifacts/*/.*.partial/.rank-{victim[-1]}.json")
    return int(json.loads(path.read_text())[0])
