"""The fact that something was published, kept beside the artifact (outside its manifest)."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.contract import write_json
from pipeline.errors import StoreError

_KEY = ("endpoint", "repo", "repo_type", "commit")


def add_entry(path: Path, entry: dict[str, Any]) -> None:
    """Add a publication to the file at `path`; the same commit of the same repository is one entry.

    Raises:
        StoreError: the file holds something else.
    """
    with locked(path):
        rest = [one for one in read_entries(path) if any(one.get(name) != entry[name] for name in _KEY)]
        write_json(path, {"format": 1, "published": [*rest, entry]})


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Return the publications in the file at `path`, none when there is no file yet; its folder is made.

    Raises:
        StoreError: the file holds something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_bytes())["published"] if path.exists() else []
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path}: no record of publications; move it away, then run the same command again") from None
    return entries


@contextmanager
def locked(path: Path, inherited: int | None = None) -> Iterator[None]:
    """Keep other publishers away from what lies at `path` (a file or a folder); the lock lies beside it and ends with us.

    Args:
        path: what is locked.
        inherited: file descriptor of that lock, which the program that started this one holds; None: wait for the lock.

    Raises:
        StoreError: the descriptor is of something else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if inherited is not None and not _is_same_file(inherited, lock):
            raise StoreError(f"--lock {inherited}: not the lock of {path}; leave --lock out, it is for `groundup publish`")
        fcntl.flock(lock if inherited is None else inherited, fcntl.LOCK_EX)  # at once where it is held through `inherited`
        yield
    finally:
        os.close(lock)


def _is_same_file(inherited: int, lock: int) -> bool:
    try:
        return os.path.sameopenfile(inherited, lock)
    except OSError:  # no such descriptor
        return False
