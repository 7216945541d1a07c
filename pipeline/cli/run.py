"""`groundup plan` and `groundup run`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TextIO

from pipeline.cli.session import Session, open_session, write_note
from pipeline.executors import make_executor
from pipeline.job import Outcome
from pipeline.progress import Display, duration, tail
from pipeline.runner import RunState, run_plan

_COLORS = {
    "cached": "2",
    "adopted": "33",
    "resume": "36",
    "run": "1",
    "done": "32",
    "failed": "1;31",
    "interrupted": "33",
    "skipped": "2",
}


def plan(arguments: argparse.Namespace) -> int:
    """Show for each stage what a run would do and why."""
    session = _open(arguments)
    if arguments.json:
        print(json.dumps([_as_json(session, name) for name in session.plan], indent=1))
        return 0
    width = max(map(len, session.plan))
    for name, planned in session.plan.items():
        line = f"{name:<{width}}  {paint(planned.state.ljust(7), planned.state)}  {planned.fingerprint[:8]}"
        print(f"{line}  {planned.causes[0] if planned.causes else ''}".rstrip())
        for cause in planned.causes[1:]:
            print(f"{'':<{width + 21}}{cause}")
    waiting = sum(planned.state in ("run", "resume") for planned in session.plan.values())
    print(f"\n{waiting} of {len(session.plan)} stages to run" if waiting else "\nnothing to run")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run what is not done yet, show progress, link the results and write the report."""
    session = _open(arguments)
    began = time.monotonic()
    executor = make_executor(arguments.executor, jobs=arguments.jobs)
    executor.check(planned.node for planned in session.plan.values() if planned.state in ("run", "resume"))
    write_note(session, sys.argv[1:])
    cores = max(1, len(os.sched_getaffinity(0)) // arguments.jobs)
    display = Display(session.plan, session.store)
    silent = arguments.json or all(planned.state == "cached" for planned in session.plan.values())
    try:
        state = run_plan(
            session.plan,
            session.store,
            session.recipe.name,
            executor,
            offline=arguments.offline,
            cores=cores,
            force=session.forced,
            notify=(lambda _: None) if silent else display,
        )
    finally:
        display.close()
    session.store.hashes.save()
    if arguments.json:
        print(json.dumps({name: outcome.model_dump() for name, outcome in state.outcomes.items()}, indent=1))
    else:
        _tell(session, state, time.monotonic() - began)
    _report(session, sys.stderr if arguments.json else sys.stdout)
    return state.exit_code


def paint(text: str, state: str) -> str:
    """Colour a word on a terminal."""
    return f"\033[{_COLORS.get(state, '0')}m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def _open(arguments: argparse.Namespace) -> Session:
    return open_session(
        arguments.recipe,
        arguments.store,
        arguments.overrides,
        only=arguments.only,
        keep=arguments.keep,
        force=arguments.force,
        offline=arguments.offline,
    )


def _as_json(session: Session, name: str) -> dict[str, object]:
    planned = session.plan[name]
    return {
        "name": name,
        "stage": planned.node.stage,
        "state": planned.state,
        "fingerprint": planned.fingerprint,
        "causes": planned.causes,
    }


def _tell(session: Session, state: RunState, seconds: float) -> None:
    for name, outcome in state.outcomes.items():
        if outcome.state == "failed":
            _tell_failure(session, name, outcome)
    counts: dict[str, int] = {}
    for outcome in state.outcomes.values():
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    print(", ".join(f"{number} {word}" for word, number in counts.items()) + f" in {duration(seconds)}")
    if state.stopped_by or state.exit_code:
        print(f"go on with:  {shlex.join([*_program(), *sys.argv[1:]])}")


def _report(session: Session, stream: TextIO) -> None:
    from pipeline.cli.reports import write_report

    print(f"report:  {write_report(session.store, session.recipe.name)}", file=stream)


def _program() -> list[str]:
    """How this command can be typed again: `make` finds `groundup` in `.venv/bin`, a shell may not."""
    if shutil.which("groundup"):
        return ["groundup"]
    return [os.path.relpath(sys.argv[0])] if Path(sys.argv[0]).name == "groundup" else [sys.executable, "-m", "pipeline"]


def _tell_failure(session: Session, name: str, outcome: Outcome) -> None:
    planned = session.plan[name]
    log = session.store.place(planned.node.stage, planned.fingerprint).partial / "log.txt"
    print(f"\n{paint('failed', 'failed')}  {name}: {outcome.message}", file=sys.stderr)
    for line in tail(log, 15):
        print(f"  | {line}", file=sys.stderr)
    whole = [*_program(), "logs", str(session.recipe.path), name, "--store", str(session.store.root)]
    print(f"  whole log:  {shlex.join(whole)}\n", file=sys.stderr)
