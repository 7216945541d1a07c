"""Faults on demand: which request goes wrong, and how."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Fault:
    """What happens to the requests whose `METHOD /path?query` contains `pattern` (a regular expression).

    `status` answers without doing it; `drop` cuts the connection before or after doing it, without an answer; `cut` ends
    the answer after so many bytes; `cut_upload` stops reading the request after so many; `delay` waits, in seconds.
    `call` runs first (or, with `drop="after"`, once the work is done): a test kills its client there.
    """

    pattern: str
    status: int = 0
    code: str = ""
    message: str = "injected"
    retry_after: int | None = None
    drop: Literal["before", "after"] | None = None
    cut: int | None = None
    cut_upload: int | None = None
    delay: float = 0.0
    call: Callable[[], None] | None = None
    skip: int = 0
    times: int = 1
    seen: int = field(default=0, init=False)

    def strikes(self, line: str) -> bool:
        """Count a request; True when this is one that goes wrong."""
        if not re.search(self.pattern, line):
            return False
        self.seen += 1
        return self.skip < self.seen <= self.skip + self.times


@dataclass(frozen=True)
class Logged:
    """A request that was answered (`status` 0: it was cut off)."""

    line: str
    status: int
    user: str | None
    range: str | None


class Faults:
    """The faults that wait, and the log of requests; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._waiting: list[Fault] = []
        self._in_flight = 0
        self.log: list[Logged] = []

    def add(self, pattern: str, **how: object) -> Fault:
        """Let requests that match `pattern` go wrong; the keys are those of `Fault`."""
        fault = Fault(pattern, **how)  # type: ignore[arg-type]
        with self._lock:
            self._waiting.append(fault)
        return fault

    def clear(self) -> None:
        """Forget the faults and the log."""
        with self._lock:
            self._waiting.clear()
            self.log.clear()

    def next(self, line: str) -> Fault | None:
        """The fault that strikes this request, if any; `record` is called when it was answered."""
        with self._lock:
            self._in_flight += 1
            return next((fault for fault in self._waiting if fault.strikes(line)), None)

    def record(self, entry: Logged) -> None:
        """Write a request down."""
        with self._lock:
            self.log.append(entry)
            self._in_flight -= 1
            self._lock.notify_all()

    def count(self, pattern: str, status: int | None = None) -> int:
        """How many requests matched `pattern` (and were answered with `status`).

        A client may have its answer before the request is written down: those on their way are waited for.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._in_flight == 0, timeout=5)
            return sum(bool(re.search(pattern, e.line)) and status in (None, e.status) for e in self.log)
