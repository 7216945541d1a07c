"""The one stream that live progress, plots, the report and the service read: `events.jsonl`.

One event per line: `{"t": unix seconds, "step": int, "name": str, "value": number or string}`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.durable import write_bytes


class Event(NamedTuple):
    """One line of `events.jsonl`."""

    time: float
    step: int
    name: str
    value: float | str


class EventLog:
    """Appends events to a file; a line that a kill cut in half is dropped by the reader."""

    def __init__(self, path: Path, *, silent: bool = False) -> None:
        self.path = path
        self._silent = silent  # only one process of a stage writes

    def append(self, step: int, values: dict[str, Any]) -> None:
        """Write one line for each of `values`, in one system call."""
        if self._silent:
            return
        now = round(time.time(), 3)
        lines = [json.dumps({"t": now, "step": step, "name": name, "value": _plain(value)}) for name, value in values.items()]
        payload = ("\n".join(lines) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if _ends_mid_line(self.path):
                payload = b"\n" + payload
            os.write(descriptor, payload)
        finally:
            os.close(descriptor)

    def rewind(self, step: int) -> None:
        """Drop the events after `step`: a resumed stage writes them again."""
        if self.path.exists() and not self._silent:
            kept = [line for line, event in _parsed(self.path) if event.step <= step]
            write_bytes(self.path, "".join(line + "\n" for line in kept).encode())


def read_events(path: Path) -> list[Event]:
    """Return the complete events of `path`, oldest first; a missing file has none."""
    try:
        return [event for _, event in _parsed(path)]
    except FileNotFoundError:
        return []


def recent(path: Path, tail_bytes: int = 16_384) -> list[Event]:
    """Return the events in the last `tail_bytes` of `path`, oldest first; a missing file has none.

    A watcher calls this while the stage may end: its commit renames the directory at any moment, so nothing is asked twice.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - tail_bytes))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [event for _, event in _events(lines)]


def _parsed(path: Path) -> Iterator[tuple[str, Event]]:
    return _events(path.read_text(encoding="utf-8", errors="replace").splitlines())


def _events(lines: list[str]) -> Iterator[tuple[str, Event]]:
    for line in lines:
        try:
            row = json.loads(line)
            event = Event(row["t"], row["step"], row["name"], row["value"])
        except (ValueError, KeyError, TypeError):
            continue
        yield line, event


def _ends_mid_line(path: Path) -> bool:
    size = path.stat().st_size
    if size == 0:
        return False
    with open(path, "rb") as file:
        file.seek(size - 1)
        return file.read(1) != b"\n"


def _plain(value: Any) -> float | str:
    """JSON has no NaN: a number that is not finite is written as its name."""
    if isinstance(value, str):
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)
