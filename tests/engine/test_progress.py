"""The line that says how far a running stage is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.watch import failure_of
from pipeline.context import Context
from pipeline.events import Event, read_events, recent
from pipeline.plan import saved_state
from pipeline.progress import how_far, tail, time_left


def report(time: float, done: int, total: int = 100, unit: str = "step", **values: float) -> list[Event]:
    """The events that one call of `Context.progress` writes."""
    named = {"progress": done, "total": total, "unit": unit} | values
    return [Event(time, done, name, value) for name, value in named.items()]


def test_the_time_left_follows_the_pace_of_the_recent_steps() -> None:
    events = report(10, 20) + report(12, 30) + report(14, 40, loss=2.5)
    assert time_left(events) == pytest.approx(12)  # 60 steps at 5 a second
    assert how_far(events) == "step 40 of 100  12 s left  loss 2.5"


def test_the_pace_of_another_count_says_nothing() -> None:
    before = report(0, 1, 1000, "document") + report(5, 900, 1000, "document")
    assert time_left(before + report(6, 10)) is None
    assert time_left(before + report(6, 10) + report(8, 20)) == pytest.approx(16)


def test_before_there_is_a_pace_and_at_the_end_no_time_is_named() -> None:
    assert time_left([]) is None
    assert time_left(report(0, 0)) is None
    assert time_left(report(0, 5) + report(9, 5)) is None
    assert "left" not in how_far(report(0, 50) + report(9, 100))


def test_what_a_stage_does_is_told_until_it_counts_again() -> None:
    phase = [Event(20, 0, "phase", "saving the model")]
    assert how_far(phase) == "saving the model"
    assert how_far(report(10, 0, loss=2.5) + phase) == "saving the model"
    assert how_far(phase + report(21, 0, loss=2.5)) == "step 0 of 100  loss 2.5"


def test_a_line_shows_few_values_and_none_of_a_part_of_the_model() -> None:
    values = {"generator.loss": 1.0, "step_seconds": 0.1} | {f"value_{number}": float(number) for number in range(6)}
    assert how_far(report(0, 5, **values)) == "step 5 of 100  value 0 0  value 1 1  value 2 2  value 3 3"


def test_what_is_counted_next_is_told_at_once(tmp_path: Path) -> None:
    context = Context(tmp_path, {})
    for unit in ("step", "test window"):
        for done in range(3):
            context.progress(done, 1000, unit=unit)
    context.phase("saving the model")
    context.progress(3, 1000, unit="test window")
    told = [event.value for event in read_events(tmp_path / "events.jsonl") if event.name in ("unit", "phase")]
    assert told == ["step", "test window", "saving the model", "test window"]


@pytest.mark.parametrize(
    ("look", "seen"),
    [
        (lambda partial: recent(partial / "events.jsonl"), []),
        (lambda partial: read_events(partial / "events.jsonl"), []),
        (lambda partial: tail(partial / "log.txt", 5), []),
        (failure_of, None),
        (saved_state, None),
    ],
    ids=["recent events", "all events", "log", "failure", "saved state"],
)
def test_a_stage_may_be_committed_while_it_is_looked_at(
    look: Callable[[Path], object], seen: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit renames the directory: what was there when it was asked for is gone when it is opened."""
    for question in ("exists", "is_dir", "is_file"):
        monkeypatch.setattr(Path, question, lambda path: path.name != "record.json")
    assert look(tmp_path / ".0123.partial") == seen
