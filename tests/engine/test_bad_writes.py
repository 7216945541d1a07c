"""Who may write, and when: order of writes, kills within a commit, locks of ranks, worlds of another size, clocks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifact import Record, differences, manifest
from pipeline.durable import write_json
from pipeline.errors import StoreError
from pipeline.hashes import HashCache
from pipeline.job import Job
from pipeline.launch import LAUNCH_CONFIG, Launch, accelerate_config, command_for
from pipeline.process import process_id
from pipeline.store import Place, Store, hold_shared, wait_exclusive
from pipeline.worker import _is_complete
from tests.engine.conftest import ROOT, WRITE, Project
from tests.traced import Trace, on_disk_before_named


def partial_artifact(root: Path) -> tuple[Store, Place, Record]:
    """A store whose one artifact is written and not committed; it still has a checkpoint."""
    store = Store(root)
    place = store.place("toy.write", "a" * 64)
    (place.partial / "model").mkdir(parents=True)
    (place.partial / "model" / "out.txt").write_text("result")
    (place.partial / "metrics.json").write_text("[]")
    (place.partial / "checkpoints").mkdir()
    (place.partial / "checkpoints" / "step-1").write_text("state")
    files = manifest(place.partial)
    facts = {"identity": {"config": {}}, "inputs": {}, "metrics": [], "provenance": {}}
    return store, place, Record(name="a", stage="toy.write", produces="text", fingerprint="a" * 64, files=files, **facts)


def commit(root: Path) -> None:
    store, place, record = partial_artifact(root)
    store.commit(place, record)


WRITERS: dict[str, Callable[[Path], None]] = {
    "write_json": lambda root: write_json(root / "value.json", {"a": 1}),
    "commit": commit,
}


@pytest.mark.parametrize("name", WRITERS)
def test_everything_is_on_disk_before_its_name_appears(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace(monkeypatch)
    WRITERS[name](tmp_path)
    trace.stop()
    assert on_disk_before_named(trace, tmp_path) == []


def test_a_reader_sees_the_old_content_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "value.json"
    write_json(path, "old")
    seen = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def call(*arguments: object, real: Callable[..., object] = real) -> object:
            seen.append(json.loads(path.read_text()))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)
    write_json(path, "new")
    assert seen[:2] == ["old", "old"], "the new content appears by the rename, not before"
    assert json.loads(path.read_text()) == "new"


def killed_in_commit(root: Path, number: int) -> bool:
    """Commit in a child that kills itself before its n-th durable call; False when it got through."""
    store, place, record = partial_artifact(root)
    child = os.fork()
    if child == 0:
        count = 0
        for name, function in [(name, getattr(os, name)) for name in ("fsync", "replace", "rename", "unlink", "rmdir")]:

            def call(*arguments: object, real: Callable[..., object] = function, **options: object) -> object:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            setattr(os, name, call)
        store.commit(place, record)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
def test_a_kill_at_any_write_of_a_commit_leaves_what_the_next_worker_completes(tmp_path: Path) -> None:
    number = 0
    while killed_in_commit(tmp_path / str(number), number + 1):
        store, place, record = partial_artifact(tmp_path / "expected")
        shutil.rmtree(tmp_path / "expected")
        store = Store(tmp_path / str(number))
        place = store.place("toy.write", "a" * 64)
        if not place.final.exists():
            if not _is_complete(place.partial):
                assert (place.partial / "checkpoints" / "step-1").exists(), "the state is there until the record is"
                store.commit(place, record)
            else:
                store.finish_commit(place)
        assert not differences(place.final, Record.load(place.final))
        assert not place.partial.exists()
        number += 1
    assert number > 8, "there are more writes than that"


@pytest.mark.slow
def test_a_finished_directory_is_committed_and_not_computed_again(finished_one: Project) -> None:
    (path,) = Store(finished_one.root).all()
    path.rename(path.with_name(f".{Record.load(path).fingerprint}.partial"))  # as if killed just before the rename
    assert "not yet committed" in finished_one.groundup("plan", "recipe.yaml")
    finished_one.groundup("run", "recipe.yaml")
    assert finished_one.ran() == []
    assert (finished_one.root / "runs/r/a/out.txt").read_text() == "a"


SLOW = WRITE.replace("def run(config, context):", "def run(config, context):\n        import time\n        time.sleep(0.7)")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_rank_holds_its_directory_while_it_lives(project: Project) -> None:
    project.stage("write", SLOW)
    project.recipe("name: r\nstages:\n  a: {stage: toy.write, text: a}\n")
    process = project.start("run", "recipe.yaml")
    wait_for(lambda: bool(list(project.root.glob("artifacts/*/.*.partial/.beat-0"))))
    (partial,) = project.root.glob("artifacts/*/.*.partial")
    try:
        with pytest.raises(StoreError, match="a process of an earlier attempt still writes here"):
            wait_exclusive(partial, 0)
    finally:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


@pytest.mark.slow
def test_no_worker_begins_while_a_process_of_an_earlier_attempt_holds_the_directory(finished_one: Project) -> None:
    (path,) = Store(finished_one.root).all()
    partial = path.with_name(f".{Record.load(path).fingerprint}.partial")
    shutil.rmtree(path)
    partial.mkdir()
    for lock in path.parent.glob(".*.lock"):
        lock.unlink()
    descriptor = hold_shared(partial)
    process = finished_one.start("run", "recipe.yaml")
    wait_for(lambda: any(lock.stat().st_size for lock in finished_one.root.glob("artifacts/*/.*.lock")))
    time.sleep(1)
    assert not (partial / ".job.json").exists()
    assert finished_one.ran() == []
    os.close(descriptor)
    process.communicate(timeout=60)
    assert finished_one.ran() == ["a"]


def test_a_rank_in_a_world_of_another_size_writes_nothing(project: Project) -> None:
    partial = project.root / "partial"
    partial.mkdir()
    job = Job(
        recipe="r",
        node="a",
        stage="toy.write",
        produces="text",
        fingerprint="a" * 64,
        identity={},
        config={"text": "a"},
        inputs={},
        launch=Launch(),
        store=project.root,
        offline=True,
        force=False,
        cores=1,
        driver=process_id(),
        commit="",
    )
    (partial / ".job.json").write_text(job.model_dump_json())
    environment = project.environment | {"WORLD_SIZE": "2", "RANK": "1", "GROUNDUP_WORKER": ":".join(map(str, process_id()))}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{project.root}"
    command = [sys.executable, "-m", "pipeline.rank", str(partial)]
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "launch.processes is 1, but 2 were started" in done.stderr
    assert not [path for path in partial.iterdir() if not path.name.startswith(".")]


def test_a_users_accelerate_settings_do_not_reach_the_ranks(tmp_path: Path) -> None:
    inherited = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "1", "RANK": "0", "MASTER_PORT": "1", "HOME": "/home"}
    inherited |= {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1", "TORCH_ELASTIC_WORKER_IDENTICAL": "1"}
    command = command_for(Launch(processes=2, grace_seconds=89.5), tmp_path, gpu_ids=[], cores=2, environment=inherited)
    refused = {"ACCELERATE_USE_CPU", "WORLD_SIZE", "RANK", "MASTER_PORT", "TORCH_ELASTIC_WORKER_IDENTICAL"}
    assert not refused & command.environment.keys()
    assert command.environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "90", "or torch kills what is still saving after 30 s"
    assert command.environment["HOME"] == "/home"
    assert command.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert command.argv[command.argv.index("--num_processes") + 1] == "2"
    settings = json.loads(command.accelerate_config or "")
    assert (settings["distributed_type"], settings["num_processes"]) == ("MULTI_GPU", 2), "only this starts two ranks on a CPU"


@pytest.mark.parametrize("path", [None, *sorted((ROOT / "configs" / "launch").glob("*.yaml"))])
def test_accelerate_can_read_the_file_that_the_worker_leaves_for_it(tmp_path: Path, path: Path | None) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    launch = Launch(processes=2, accelerate_config=str(path) if path else None)
    (tmp_path / LAUNCH_CONFIG).write_text(accelerate_config(launch))
    read = load_config_from_file(str(tmp_path / LAUNCH_CONFIG))
    assert read.mixed_precision == "no", "a stage chooses its precision itself"
    assert read.distributed_type.value == ("FSDP" if path and "fsdp" in path.name else "MULTI_GPU")


def test_a_file_with_a_time_in_the_future_is_hashed_each_time(tmp_path: Path) -> None:
    """A clock that was set back: the time stamp cannot tell whether the content is still the same."""
    path, later = tmp_path / "data", time.time() + 3600
    hashes = HashCache(tmp_path / "hashes.json")
    found = []
    for content in ("one", "two"):
        path.write_text(content)
        os.utime(path, (later, later))
        found.append(hashes.sha256(path))
    assert found[0] != found[1]


@pytest.mark.slow
def test_a_lock_that_a_crash_left_behind_is_free(finished_one: Project) -> None:
    (lock,) = finished_one.root.glob("artifacts/*/.*.lock")
    lock.write_text(json.dumps({"driver": [1, 1], "worker": [2**22, 1]}))
    (path,) = Store(finished_one.root).all()
    shutil.rmtree(path)
    finished_one.groundup("run", "recipe.yaml")
    assert finished_one.ran() == ["a"]


FAILS_ONCE = """
    from pathlib import Path

    from pipeline.errors import StageError


    def run(config, context):
        flag = Path(context.directory).parents[2] / "failed"
        if not flag.exists():
            flag.touch()
            raise StageError("not today")
        (context.directory / "out.txt").write_text("well")
"""


@pytest.mark.slow
def test_a_failed_stage_runs_again(project: Project) -> None:
    project.stage("fail", FAILS_ONCE)
    project.recipe("name: r\nstages:\n  a: {stage: toy.fail, text: a}\n")
    assert "not today" in project.groundup("run", "recipe.yaml", code=1)
    project.groundup("run", "recipe.yaml")
    assert (project.root / "runs/r/a/out.txt").read_text() == "well"
