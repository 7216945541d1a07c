"""The store: where artifacts lie, who may write them, and how one appears.

    artifacts/<stage type>/<fingerprint8>/          finished; appears in one rename
    artifacts/<stage type>/.<fingerprint>.partial/  being written; a killed stage finds its own checkpoints here
    artifacts/<stage type>/.<fingerprint>.lock      held by the one worker that writes
    runs/<recipe>/<stage>                           link to the artifact of the last run

Promised for Linux and a local file system; elsewhere `flock` and `rename` may promise less.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import CHECKPOINTS, RECORD, Artifact, Record, content
from pipeline.durable import fsync_directory, fsync_tree
from pipeline.errors import Damaged, StoreError
from pipeline.hashes import HashCache
from pipeline.process import ProcessId, process_id


@dataclass(frozen=True)
class Place:
    """Where the artifact of one fingerprint lies."""

    final: Path
    partial: Path
    lock: Path


class Store:
    """Directories of one store; `root` holds `artifacts/` and `runs/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.runs = root / "runs"
        self.hashes = HashCache(self.artifacts / ".hashes.json")
        self._records: dict[str, list[Record]] = {}

    def place(self, stage: str, fingerprint: str) -> Place:
        """Return the paths for one fingerprint; two that share their first 8 digits get longer names."""
        folder = self.artifacts / stage.removeprefix("stages.")
        final = folder / fingerprint[:8]
        if _claimed(final) not in (None, fingerprint):
            final = folder / fingerprint
        return Place(final, folder / f".{fingerprint}.partial", folder / f".{fingerprint}.lock")

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """Return the finished artifact, or None when there is none.

        Raises:
            Damaged: there is one, but a file of it is not as recorded.
        """
        path = self.place(stage, fingerprint).final
        if not path.is_dir():
            return None
        artifact = Artifact.open(path)
        if artifact.fingerprint != fingerprint:
            raise Damaged(f"{path}: its record tells of another fingerprint ({artifact.fingerprint[:8]})")
        self.check(artifact)
        return artifact

    def check(self, artifact: Artifact) -> None:
        """Compare every file with the manifest; unchanged files are recognised by their time stamps.

        Raises:
            Damaged: a file is missing, was added or was changed.
        """
        found = content(artifact.path)
        recorded = artifact.record.files
        if added := sorted(set(found) - set(recorded)):
            raise Damaged(f"{artifact.path}: {added[0]} was added after the artifact was finished")
        for name, entry in recorded.items():
            if name not in found:
                raise Damaged(f"{artifact.path}: {name} is missing")
            if os.path.getsize(found[name]) != entry.size or self.hashes.sha256(found[name]) != entry.sha256:
                raise Damaged(f"{artifact.path}: {name} was changed after the artifact was finished")

    def all(self, stage: str | None = None) -> Iterator[Path]:
        """Yield the directories of finished artifacts (of one stage), sorted by path."""
        pattern = f"{stage.removeprefix('stages.')}/*" if stage else "*/*"
        yield from sorted(path for path in self.artifacts.glob(pattern) if not path.name.startswith(".") and path.is_dir())

    def records(self, stage: str) -> list[Record]:
        """Return the readable records of one stage, newest first (read once in the life of this object)."""
        if stage in self._records:
            return self._records[stage]
        found = []
        for path in self.all(stage):
            try:
                found.append((os.path.getmtime(path / RECORD), Record.load(path)))
            except (Damaged, OSError):
                continue
        self._records[stage] = [record for _, record in sorted(found, key=lambda pair: pair[0], reverse=True)]
        return self._records[stage]

    def kept(self, stage: str) -> dict[str, str]:
        """Return {fingerprint of newer code: fingerprint of the artifact that was adopted for it}."""
        return {adoption.fingerprint: record.fingerprint for record in self.records(stage) for adoption in record.adopted}

    def commit(self, place: Place, record: Record) -> None:
        """Turn the partial directory into the artifact. A kill at any point leaves a state that `finish_commit` completes."""
        fsync_tree(place.partial)
        record.save(place.partial)
        self.finish_commit(place)

    def finish_commit(self, place: Place) -> None:
        """Drop what only a running stage needs, and rename; whatever lay under the name before is set aside first."""
        for path in place.partial.iterdir():
            if path.name == CHECKPOINTS or path.name.startswith("."):
                _remove(path)
        if place.final.exists():
            aside = place.final.with_name(f".{place.final.name}.replaced")
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(place.final, aside)
        os.rename(place.partial, place.final)
        fsync_directory(place.final.parent)
        shutil.rmtree(place.final.with_name(f".{place.final.name}.replaced"), ignore_errors=True)

    def link(self, recipe: str, node: str, target: Path) -> None:
        """Point `runs/<recipe>/<node>` at an artifact, in one step, with a relative link."""
        folder = self.runs / recipe
        folder.mkdir(parents=True, exist_ok=True)
        relative = os.path.relpath(target, folder)
        name = folder / node
        if name.is_symlink() and os.readlink(name) == relative:
            return
        temporary = folder / f".{node}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(relative)
        os.replace(temporary, name)


_RESUMED = frozenset({CHECKPOINTS, "resolved.json", "events.jsonl", "log.txt", ".attempts.json"})
"""What a new attempt takes over from a killed one."""


def clean(partial: Path) -> None:
    """Remove from a partial directory what a new attempt must not find."""
    for path in partial.iterdir():
        if path.name not in _RESUMED:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


class Lock:
    """An exclusive `flock` on a file that names its owner; the kernel drops it when the owner dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def try_acquire(self, owner: dict[str, Any]) -> bool:
        """Take the lock if it is free, and write who holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner | {"worker": process_id()}).encode(), 0)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_owner(path: Path) -> dict[str, Any] | None:
    """Return what the holder of a lock wrote (`worker`, `driver`), or None when nobody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:
        try:
            owner: dict[str, Any] = json.loads(os.pread(descriptor, 65536, 0))
        except ValueError:
            return {}
        return {key: ProcessId(*value) if key in ("worker", "driver") else value for key, value in owner.items()}
    finally:
        os.close(descriptor)


def hold_shared(directory: Path) -> int:
    """Take a shared lock on a directory for the life of this process: as long as it stands no new worker writes there."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def wait_exclusive(directory: Path, seconds: float) -> None:
    """Wait until no process of an earlier attempt holds `directory`.

    Raises:
        StoreError: one still does after `seconds`.
    """
    deadline = time.monotonic() + seconds
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"{directory}: a process of an earlier attempt still writes here; end it and run again"
                    ) from None
                time.sleep(0.05)
    finally:
        os.close(descriptor)


def _claimed(path: Path) -> str | None:
    """Fingerprint that the artifact at `path` claims; None when it is absent or unreadable."""
    try:
        claimed = json.loads((path / RECORD).read_bytes())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(claimed)
