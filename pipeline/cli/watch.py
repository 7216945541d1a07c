"""`groundup status` and `groundup logs`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from pipeline.artifact import Record
from pipeline.cli.run import paint
from pipeline.cli.session import NOTE, read_note, read_note_of
from pipeline.errors import Damaged, InputError, nearest
from pipeline.events import recent
from pipeline.process import ProcessId, is_alive
from pipeline.progress import duration, how_far
from pipeline.rank import ERROR
from pipeline.store import Place, Store, lock_owner


def status(arguments: argparse.Namespace) -> int:
    """Show each stage of one recipe, or of all that were run in this store."""
    store = Store(arguments.store)
    if arguments.recipe:
        notes = dict([read_note(store, arguments.recipe)])
    else:
        names = sorted(note.parent.name for note in store.runs.glob(f"*/{NOTE}"))
        notes = {name: read_note_of(store, name) for name in names}
    found = {name: _rows(store, note) for name, note in notes.items()}
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    if not found:
        print("nothing was run in this store yet; begin with: groundup run configs/quickstart.yaml")
    width = max((len(row["name"]) for rows in found.values() for row in rows), default=0) + 2
    for name, rows in found.items():
        print(f"{name}")
        for row in rows:
            parts = [
                f"  {row['name']:<{width}}",
                paint(row["state"].ljust(12), row["state"]),
                row["time"].rjust(12),
                "  ",
                row["detail"],
            ]
            print("".join(parts).rstrip())
    return 0


def _rows(store: Store, note: dict[str, Any]) -> list[dict[str, str]]:
    driver_alive = is_alive(ProcessId(*note["driver"]))
    rows = []
    for name, values in note["nodes"].items():
        place = store.place(values["stage"], values["fingerprint"])
        state, seconds, detail = _state(place, driver_alive)
        time_text = duration(seconds) if seconds else ""
        rows.append({"name": name, "state": state, "time": time_text, "detail": detail, "fingerprint": values["fingerprint"][:8]})
    return rows


def _state(place: Place, driver_alive: bool) -> tuple[str, float, str]:
    if owner := lock_owner(place.lock):
        events = recent(place.partial / "events.jsonl")
        orphan = "" if is_alive(owner.get("driver", ProcessId(0, 0))) else "  (its driver is gone; it goes on)"
        return "running", time.time() - place.lock.stat().st_mtime, how_far(events) + orphan
    try:
        record = Record.load(place.final)
        return "done", float(record.provenance.get("wall_seconds", 0.0)), f"{place.final.name}"
    except Damaged as damage:
        if place.final.exists():
            return "damaged", 0.0, str(damage)
    if failure := failure_of(place.partial):
        return "failed", 0.0, failure
    if place.partial.is_dir():
        return "stopped", 0.0, how_far(recent(place.partial / "events.jsonl")) or "before its first step"
    return ("waiting" if driver_alive else "not run"), 0.0, ""


def failure_of(partial: Path) -> str | None:
    """Return what the last attempt in a partial directory failed of, in one line; None when it did not fail."""
    try:
        names = sorted(name for name in os.listdir(partial) if name.startswith(f"{ERROR}."))
    except FileNotFoundError:
        return None
    for name in names:
        try:
            told = json.loads((partial / name).read_bytes())
        except (FileNotFoundError, ValueError):  # half written, or a new attempt has just removed it
            continue
        if told["exit_code"] not in (130, 143):
            return str(told["message"]).splitlines()[0]
    return None


def logs(arguments: argparse.Namespace) -> int:
    """Print the log of one stage, and with -f what is added until the stage ends."""
    store = Store(arguments.store)
    name, note = read_note(store, arguments.recipe)
    if arguments.stage not in note["nodes"]:
        raise InputError(f"'{name}' has no stage '{arguments.stage}' ({nearest(arguments.stage, note['nodes'])})")
    values = note["nodes"][arguments.stage]
    place = store.place(values["stage"], values["fingerprint"])
    with _open_log(place, arguments.stage) as file:
        sys.stdout.write(file.read())
        while arguments.follow and lock_owner(place.lock):
            time.sleep(0.3)
            sys.stdout.write(file.read())
            sys.stdout.flush()
        sys.stdout.write(file.read())
    return 0


def _open_log(place: Place, stage: str) -> TextIO:
    for folder in (place.partial, place.final, place.partial):  # a commit renames the first to the second at any moment
        with contextlib.suppress(FileNotFoundError):
            return open(folder / "log.txt", encoding="utf-8", errors="replace")
    raise InputError(f"stage '{stage}' has not run yet, so it has no log")
