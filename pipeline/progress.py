"""Live progress, read from the events of running stages: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipeline.events import Event, recent
from pipeline.plan import Plan
from pipeline.runner import RunState
from pipeline.store import Store

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_STYLES = {"done": "green", "cached": "dim", "adopted": "yellow", "failed": "bold red", "interrupted": "yellow", "skipped": "dim"}
_HIDDEN = ("progress", "total", "unit", "phase")
_MOST_VALUES = 4


class Display:
    """Shows a run while it lasts; call it with the state, close it at the end."""

    def __init__(self, plan: Plan, store: Store, *, stream: TextIO | None = None) -> None:
        self._plan = plan
        self._store = store
        self._stream = stream or sys.stderr
        self._live: Live | None = None
        self._told: dict[str, str] = {}
        self._last_line = 0.0

    def __call__(self, state: RunState) -> None:
        """Show `state`; on a terminal at once, elsewhere a line for each change and one in 15 seconds for each stage."""
        if self._stream.isatty():
            self._update_table(state)
        else:
            self._print_lines(state)

    def close(self) -> None:
        """Leave the terminal as it should be."""
        if self._live:
            self._live.stop()

    def _update_table(self, state: RunState) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=Console(file=self._stream), refresh_per_second=5, transient=False)
            self._live.start()
        self._live.update(self._table(state))

    def _table(self, state: RunState) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for title in ("stage", "state", "time", "how far"):
            table.add_column(title, no_wrap=title != "how far")
        for name in self._plan:
            status, seconds, far = self._row(name, state)
            table.add_row(Text(name), Text(status, style=_STYLES.get(status, "cyan")), Text(seconds), Text(far))
        return table

    def _row(self, name: str, state: RunState) -> tuple[str, str, str]:
        if name in state.running:
            seconds = time.time() - state.running[name]
            status = "stopping" if state.stopped_by else "running"
            return status, duration(seconds), self._how_far(name, state.running[name])
        if outcome := state.outcomes.get(name):
            spent = duration(outcome.wall_seconds) if outcome.wall_seconds else ""
            return outcome.state, spent, outcome.message.splitlines()[0] if outcome.message else ""
        return "waiting", "", ""

    def _how_far(self, name: str, began: float) -> str:
        planned = self._plan[name]
        events = recent(self._store.place(planned.node.stage, planned.fingerprint).partial / "events.jsonl")
        return how_far([event for event in events if event.time >= began - 1])

    def _print_lines(self, state: RunState) -> None:
        due = time.monotonic() - self._last_line > 15
        for name in self._plan:
            status, seconds, far = self._row(name, state)
            if status != "waiting" and (self._told.get(name) != status or (due and name in state.running)):
                print("  ".join(filter(None, [f"{name}: {status}", seconds, far])), file=self._stream, flush=True)
                self._told[name] = status
                self._last_line = time.monotonic()


def how_far(recent_events: list[Event]) -> str:
    """Return one line on a running stage: what it does, or step, time left, values; whichever it told last."""
    events = {event.name: event for event in recent_events}
    last = next((event for event in reversed(recent_events) if event.name in ("phase", "progress")), None)
    if last is None or last.name == "phase":
        return str(last.value) if last else ""
    done, total = events["progress"], events.get("total")
    unit = events["unit"].value if "unit" in events else "step"
    parts = [f"{unit} {done.value:,.0f}" + (f" of {total.value:,.0f}" if total and isinstance(total.value, float | int) else "")]
    if left := time_left(recent_events):
        parts.append(f"{duration(left)} left")
    values = [event for name, event in events.items() if _belongs_in_a_line(name) and event.step == done.step]
    parts += [f"{event.name.replace('_', ' ')} {_number(event.value)}" for event in values[:_MOST_VALUES]]
    return "  ".join(parts)


def _belongs_in_a_line(name: str) -> bool:
    """Return whether a value is shown live; what a part of a model says (`generator.loss`) and seconds are for the curves."""
    return name not in _HIDDEN and "." not in name and not name.startswith("step_")


def time_left(recent_events: list[Event]) -> float | None:
    """Return the seconds to the end of what is counted now, at the pace of its recent steps; None before there is a pace."""
    reports: list[dict[str, Event]] = []  # one for each call of `Context.progress`
    for event in recent_events:
        if event.name == "progress":
            reports.append({})
        if reports and event.name in _HIDDEN:
            reports[-1][event.name] = event
    if not reports or "total" not in reports[-1]:
        return None
    what = [reports[-1][name].value for name in ("total", "unit") if name in reports[-1]]
    same = [r["progress"] for r in reports if [r[name].value for name in ("total", "unit") if name in r] == what]
    seconds, steps = same[-1].time - same[0].time, float(same[-1].value) - float(same[0].value)
    if seconds < 1 or steps <= 0:
        return None
    return max(0.0, float(what[0]) - float(same[-1].value)) * seconds / steps


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return seconds as people write them: `0.4 s`, `1 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def tail(path: Path, lines: int) -> list[str]:
    """Return the last lines of a log, without terminal control characters."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    printable = "".join(char if char.isprintable() or char in "\n\t" else " " for char in text)
    return printable.splitlines()[-lines:]
