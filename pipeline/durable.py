"""Writes that survive a kill or a power cut at any moment (Linux, local file system).

A file or a directory appears under its name only when all of it is on disk: write under another name, fsync, rename,
fsync the directory that holds the name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def fsync_directory(path: Path) -> None:
    """Make the names in directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make the content of file `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace file `path` by `content` at once: a reader sees the old content or the new one, never a mixture."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON with sorted keys (NaN and infinities are refused), durably."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def fsync_tree(root: Path) -> None:
    """Make every file and directory under `root` durable."""
    for path in walk(root):
        fsync_file(path)
    for directory, _, _ in os.walk(root):
        fsync_directory(Path(directory))


def walk(root: Path) -> Iterator[Path]:
    """Yield the files under `root`, sorted by path; links are not followed."""
    for directory, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            yield Path(directory, name)


def sha256_file(path: Path) -> str:
    """Return the sha256 of the content of `path`, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
