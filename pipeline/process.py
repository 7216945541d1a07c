"""Processes by pid and start time, so that a recycled pid is never taken for the old process (Linux, /proc)."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1


class ProcessId(NamedTuple):
    """A process: its pid, and its start time in clock ticks since boot."""

    pid: int
    start: int


def process_id(pid: int | None = None) -> ProcessId:
    """Return the identity of process `pid` (default: this one); its start is 0 when it is gone."""
    number = os.getpid() if pid is None else pid
    fields = _stat(number)
    return ProcessId(number, int(fields[19]) if fields else 0)


def is_alive(process: ProcessId) -> bool:
    """True while that very process runs (a zombie does not)."""
    fields = _stat(process.pid)
    return bool(fields) and int(fields[19]) == process.start and fields[0] not in ("Z", "X")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def descendants(roots: Iterable[int]) -> list[ProcessId]:
    """Return the living processes among `roots` and all below them, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    ordered = list(dict.fromkeys(roots))
    for pid in ordered:
        ordered += [child for child in children.get(pid, []) if child not in ordered]
    return [process for process in map(process_id, ordered) if process.start]


def send(processes: Iterable[ProcessId], number: signal.Signals) -> None:
    """Send a signal to each process that still is the one meant."""
    for process in processes:
        if is_alive(process):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                continue


def end(roots: Iterable[ProcessId], *, grace_seconds: float) -> None:
    """End whole process trees: SIGTERM, grace, then SIGKILL to the tree as it was collected beforehand.

    Elastic workers live in sessions of their own and outlive their launcher: a signal to a process group misses them.
    """
    tree = descendants(root.pid for root in roots if is_alive(root))
    if grace_seconds > 0:
        send(tree, signal.SIGTERM)
        wait_gone(tree, grace_seconds)
    tree = list(dict.fromkeys([*tree, *descendants(p.pid for p in tree if is_alive(p))]))
    send(tree, signal.SIGKILL)
    wait_gone(tree, 10)


def wait_gone(processes: Iterable[ProcessId], seconds: float) -> bool:
    """Wait until all `processes` are gone; False when some still live after `seconds`."""
    deadline = time.monotonic() + seconds
    remaining = list(processes)
    while remaining := [process for process in remaining if is_alive(process)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def die_with_parent() -> None:
    """Ask the kernel to SIGKILL this process when its parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def wait_for_exit(pid: int, seconds: float) -> bool:
    """Return True as soon as child `pid` has ended, False after `seconds`."""
    descriptor = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return bool(ready)
    finally:
        os.close(descriptor)
