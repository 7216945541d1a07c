"""Watch the order of fsync and rename: a name must not appear before all that it names is on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Trace:
    """Remembers what was made durable (`fsync`) and what got its name (`replace`, `rename`), in order, by inode."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, Path, set[int]]] = []
        self._running = True
        real_fsync = os.fsync

        def fsync(descriptor: int) -> None:
            real_fsync(descriptor)
            if self._running:
                self.events.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")), {os.fstat(descriptor).st_ino}))

        monkeypatch.setattr(os, "fsync", fsync)
        for name in ("replace", "rename"):
            monkeypatch.setattr(os, name, self._named(getattr(os, name)))

    def _named(self, real):
        def call(source, target, **options):
            inodes = {path.stat().st_ino for path in [Path(source), *Path(source).rglob("*")]}
            real(source, target, **options)
            if self._running:
                self.events.append(("name", Path(target), inodes))

        return call

    def stop(self) -> None:
        """Record nothing more."""
        self._running = False


def on_disk_before_named(trace: Trace, root: Path) -> list[str]:
    """Return what was wrong: a file or folder that was not synced before it got its name, a name that was not synced after."""
    wrong, synced = [], set()
    for index, (kind, path, inodes) in enumerate(trace.events):
        if kind == "fsync":
            synced |= inodes
            continue
        wrong += [f"{path.name}: {len(inodes - synced)} of {len(inodes)} not on disk before the name"] * bool(inodes - synced)
        later = [event for event in trace.events[index + 1 :] if event[0] == "fsync" and event[1] == path.parent]
        wrong += [f"{path.name}: the name is not on disk"] * (not later)
    named = [path for kind, path, _ in trace.events if kind == "name"]
    return wrong if named else [f"nothing got its name by a rename under {root}"]
