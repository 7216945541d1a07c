"""Facts about the content of files (the sha256, the identity of code), remembered by size, mtime_ns and inode.

So `plan` need not read gigabytes, nor parse every module, again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.durable import sha256_file, write_bytes

_SETTLED_SECONDS = 0.1
"""A file may change twice within one tick of its time stamp: facts are remembered only of a file older than this."""


class HashCache:
    """Remembers facts about files in one JSON file; losing it costs time, never correctness."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._dirty = False
        self._entries: dict[str, list[Any]] = {}
        try:
            loaded = json.loads(path.read_bytes())
            self._entries = loaded if isinstance(loaded, dict) else {}
        except (OSError, ValueError):
            self._dirty = True

    def sha256(self, path: Path) -> str:
        """Return the sha256 of the content of `path`, in hex; raises OSError when it cannot be read."""
        return str(self.fact(path, "sha256", sha256_file))

    def fact(self, path: Path, kind: str, compute: Callable[[Path], Any]) -> Any:
        """Return `compute(path)`, plain JSON values that follow from the file's content alone; asked once for each content.

        Args:
            path: the file.
            kind: names what is computed, and changes with the way it is computed.
            compute: reads the file.
        """
        stat = os.stat(path)
        key = f"{kind} {os.path.realpath(path)}"
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._entries.get(key)
        if isinstance(known, list) and known[:3] == state:
            return known[3]
        found = compute(path)
        if time.time() - stat.st_mtime > _SETTLED_SECONDS:
            self._entries[key] = [*state, found]
            self._dirty = True
        return found

    def save(self) -> None:
        """Write what was learned, unless there is no store yet; one that cannot be written is no reason to fail."""
        if self._dirty and self.path.parent.is_dir():
            try:
                write_bytes(self.path, json.dumps(self._entries).encode())
                self._dirty = False
            except OSError:
                return
