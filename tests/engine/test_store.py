"""The store: what was damaged is made anew, a full disk or a read-only one loses nothing, two fingerprints never mix."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.artifact import Artifact, Record, differences, digest
from pipeline.errors import Damaged
from pipeline.hashes import HashCache
from pipeline.store import Lock, Store, lock_owner
from tests.engine.conftest import CONFIG, WRITE, Project


def _edit_file(path: Path) -> None:
    (path / "out.txt").write_text("A")


def _edit_same_time(path: Path) -> None:
    stat = (path / "out.txt").stat()
    (path / "out.txt").write_text("A")
    os.utime(path / "out.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def _edit_record(path: Path) -> None:
    text = (path / "record.json").read_text()
    (path / "record.json").write_text(text.replace('"value": 1', '"value": 2'))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a file edited by hand": _edit_file,
    "a file edited, equal size": _edit_same_time,
    "a metric in the record edited": _edit_record,
    "a file removed": lambda path: (path / "out.txt").unlink(),
    "a file added": lambda path: (path / "more.txt").touch(),
    "the record removed": lambda path: (path / "record.json").unlink(),
    "the record cut": lambda path: (path / "record.json").write_text('{"name": "a"'),
    "the record empty": lambda path: (path / "record.json").write_text(""),
    "the record not an object": lambda path: (path / "record.json").write_text("[]"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_seen_and_named(name: str, finished_one: Project) -> None:
    store = Store(finished_one.root)
    (path,) = store.all()
    fingerprint = json.loads((path / "record.json").read_text())["fingerprint"]
    store.check(Artifact.open(path))
    DAMAGE[name](path)
    with pytest.raises(Damaged):
        assert store.find("toy.write", fingerprint)


@pytest.mark.slow
def test_a_damaged_artifact_is_made_anew(finished_one: Project) -> None:
    _edit_file((finished_one.root / "runs/r/a").resolve())
    assert "out.txt was changed" in finished_one.groundup("verify", code=1)
    assert "damaged" in finished_one.groundup("plan", "recipe.yaml")
    finished_one.groundup("run", "recipe.yaml")
    assert finished_one.ran() == ["a"]
    assert "0 damaged" in finished_one.groundup("verify")


def test_a_store_can_be_moved(finished_diamond: Project) -> None:
    root = finished_diamond.root
    (root / "two").mkdir()
    for name in ("artifacts", "runs"):
        (root / name).rename(root / "two" / name)
    assert "nothing to run" in finished_diamond.groundup("plan", "recipe.yaml", "--store", "two")
    assert (root / "two/runs/diamond/d/out.txt").read_text() == "dbaca"


def test_fingerprints_that_share_their_first_digits_do_not_mix(finished_one: Project) -> None:
    (path,) = finished_one.root.glob("artifacts/*/????????")
    record = Record.load(path)
    store = Store(finished_one.root)
    other = record.fingerprint[:8] + "0" * 56
    assert store.place("toy.write", record.fingerprint).final == path
    assert store.place("toy.write", other).final == path.with_name(other)


def test_a_record_that_is_changed_at_all_has_another_digest() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": float("nan")})
    with pytest.raises(TypeError):
        digest({"a": object()})


def test_a_hash_is_remembered_only_while_the_file_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("one")
    os.utime(path, (1, 1))
    cache = HashCache(tmp_path / "hashes.json")
    first = cache.sha256(path)
    cache.save()
    remembered = HashCache(tmp_path / "hashes.json")
    remembered._entries[f"sha256 {os.path.realpath(path)}"][3] = "from memory"
    assert remembered.sha256(path) == "from memory", "an unchanged file is not read again"
    path.write_text("two")
    assert remembered.sha256(path) not in ("from memory", first)


def test_a_lock_is_held_by_one_and_tells_by_whom(tmp_path: Path) -> None:
    lock, other = Lock(tmp_path / "x.lock"), Lock(tmp_path / "x.lock")
    assert lock_owner(tmp_path / "x.lock") is None
    assert lock.try_acquire({"driver": [1, 2]})
    assert not other.try_acquire({})
    owner = lock_owner(tmp_path / "x.lock")
    assert owner is not None
    assert owner["worker"].pid == os.getpid()
    lock.release()
    assert other.try_acquire({})
    other.release()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs `mount` (run as root) for a disk that can be full or read-only")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


BIG = WRITE.replace(
    "def run(config, context):", "def run(config, context):\n        (context.directory / 'big').write_bytes(b'x' * 3_000_000)"
)


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_next_run_goes_on(project: Project, small_disk: Path) -> None:
    project.stage("big", BIG, CONFIG)
    project.recipe("name: r\nstages:\n  a: {stage: toy.write, text: a}\n  b: {stage: toy.big, text: b, needs: {upstream: a}}\n")
    told = project.groundup("run", "recipe.yaml", "--store", str(small_disk / "store"), code=1)
    assert "disk is full" in told
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    (small_disk / "store" / "runs.log").unlink()
    project.groundup("run", "recipe.yaml", "--store", str(small_disk / "store"))
    assert (small_disk / "store" / "runs.log").read_text() == "b\n", "what was finished before stays"


@pytest.mark.slow
def test_a_read_only_store_is_told_and_can_still_be_read(project: Project, small_disk: Path) -> None:
    project.recipe("name: r\nstages:\n  a: {stage: toy.write, text: a}\n")
    project.groundup("run", "recipe.yaml", "--store", str(small_disk))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "nothing to run" in project.groundup("plan", "recipe.yaml", "--store", str(small_disk))
    told = project.groundup("run", "recipe.yaml", "stages.a.text=b", "--store", str(small_disk), code=1)
    assert "read-only" in told
    assert not differences(next(Store(small_disk).all()), Record.load(next(Store(small_disk).all())))
