"""The worker of one node: `python -m pipeline.worker < JOB.json`, in a session of its own, so that it outlives its driver.

It takes the lock, ends what an earlier attempt left behind, starts the ranks, watches over them, and commits. Killed at any
point it leaves a directory that the next worker goes on from. It imports neither stages nor tensor libraries.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.artifact import CHECKPOINTS, InputEntry, Record, differences, manifest
from pipeline.attempts import Attempts
from pipeline.durable import write_json
from pipeline.errors import Damaged, GroundupError, Interrupted, StageError, StoreError
from pipeline.job import Job, Outcome
from pipeline.launch import LAUNCH_CONFIG, command_for
from pipeline.process import ProcessId, die_with_parent, end, is_alive, process_id, wait_for_exit
from pipeline.provenance import machine, provenance
from pipeline.rank import ERROR, JOB, VERSIONS, WORKER, describe_os_error
from pipeline.store import Lock, Place, Store, clean, lock_owner, wait_exclusive

_POLL_SECONDS = 0.2


class _Stop:
    """Remembers that a stop was asked for."""

    def __init__(self) -> None:
        self.number = 0
        signal.signal(signal.SIGTERM, self._remember)
        signal.signal(signal.SIGINT, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.number = number


def main() -> int:
    """Read the job, do it, print its Outcome as the last line."""
    text = sys.stdin.read()
    if not text:
        return 0  # kept ready for a job that never came
    started = time.monotonic()
    job = Job.model_validate_json(text)
    stop = _Stop()
    try:
        outcome = work(job, stop)
    except GroundupError as error:
        state = "interrupted" if error.exit_code in (130, 143) else "failed"
        outcome = Outcome(state=state, exit_code=error.exit_code, message=str(error))
    except OSError as error:
        outcome = Outcome(state="failed", exit_code=1, message=describe_os_error(error))
    print(outcome.model_copy(update={"wall_seconds": round(time.monotonic() - started, 3)}).model_dump_json(), flush=True)
    return outcome.exit_code


def work(job: Job, stop: _Stop) -> Outcome:
    """Run one job under the store's lock.

    Raises:
        StageError: the stage failed.
        StoreError: the store cannot be written.
        Interrupted: a stop was asked for.
    """
    store = Store(job.store)
    place = store.place(job.stage, job.fingerprint)
    lock = Lock(place.lock)
    if not _acquire(lock, job, store, place, stop):
        return Outcome(state="cached")
    try:
        if not job.force and _is_finished(store, job):
            return Outcome(state="cached")
        if not _is_complete(place.partial):
            _prepare(job, place)
            _run_ranks(job, place.partial, stop)
            store.commit(place, _record(job, place.partial))
        else:
            store.finish_commit(place)
        return Outcome(state="done")
    finally:
        lock.release()


def _acquire(lock: Lock, job: Job, store: Store, place: Place, stop: _Stop) -> bool:
    """Take the lock; False when another worker finished the artifact meanwhile.

    A holder whose ranks give no sign of life is ended. A stop also ends a holder whose own driver is gone.
    """
    while not lock.try_acquire({"driver": job.driver}):
        owner = lock_owner(lock.path)
        worker = owner.get("worker") if owner else None
        if worker and (silent := _silent_rank(place.partial, job.launch.heartbeat_timeout_seconds)):
            print(f"ending an earlier worker: {silent}", file=sys.stderr)
            end([worker], grace_seconds=0)
        if stop.number:
            if worker and owner and not is_alive(owner.get("driver", ProcessId(0, 0))):
                end([worker], grace_seconds=job.launch.grace_seconds)
            raise _interrupted(stop, place.partial)
        if owner is None and not job.force and _is_finished(store, job):
            return False
        time.sleep(0.1)
    return True


def _is_finished(store: Store, job: Job) -> bool:
    try:
        return store.find(job.stage, job.fingerprint) is not None
    except Damaged:
        return False


def _is_complete(partial: Path) -> bool:
    """True when an earlier worker was killed between writing the record and the rename, and all files are whole."""
    _end_earlier(partial)
    try:
        record = Record.load(partial)
    except Damaged:
        return False
    return not differences(partial, record)


def _end_earlier(partial: Path) -> None:
    """End the ranks of an attempt whose worker was killed, and wait until none holds the directory."""
    if not partial.is_dir():
        return
    for path in partial.glob(".rank-*.json"):
        try:
            end([ProcessId(*json.loads(path.read_bytes()))], grace_seconds=0)
        except (ValueError, TypeError):
            continue  # cut by a kill: that rank had not passed its own first write and ends by itself
    wait_exclusive(partial, 30)


def _prepare(job: Job, place: Place) -> None:
    place.partial.mkdir(parents=True, exist_ok=True)
    clean(place.partial)
    (place.partial / JOB).write_text(job.model_dump_json(), encoding="utf-8")


def _run_ranks(job: Job, partial: Path, stop: _Stop) -> None:
    """Start the ranks and return when all ended well; whatever ends badly raises."""
    command = command_for(job.launch, partial, gpu_ids=job.gpu_ids, cores=job.cores, environment=os.environ)
    if command.accelerate_config is not None:
        (partial / LAUNCH_CONFIG).write_text(command.accelerate_config, encoding="utf-8")
    attempts = Attempts(partial)
    attempts.begin()
    with open(partial / "log.txt", "ab") as log:
        child = subprocess.Popen(
            command.argv,
            env=command.environment | {WORKER: ":".join(map(str, process_id()))},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )
    try:
        _watch(child, job, partial, stop)
    finally:
        end([process_id(child.pid)], grace_seconds=0)
        attempts.end(resource.getrusage(resource.RUSAGE_CHILDREN))


def _watch(child: subprocess.Popen[bytes], job: Job, partial: Path, stop: _Stop) -> None:
    while not wait_for_exit(child.pid, _POLL_SECONDS):
        if stop.number:
            end([process_id(child.pid)], grace_seconds=job.launch.grace_seconds)
            break
        if silent := _silent_rank(partial, job.launch.heartbeat_timeout_seconds):
            raise StageError(
                f"{silent}; it was ended (launch.heartbeat_timeout_seconds). Run again to go on from the saved state"
            )
    code = child.wait()
    if code == 0 or (stop.number and _is_written(partial)):
        return
    raise _interrupted(stop, partial) if stop.number else _failure(partial, code)


def _is_written(partial: Path) -> bool:
    """True when the main rank wrote everything and no rank complained: a launcher that was told to stop never ends with 0."""
    return (partial / VERSIONS).exists() and not list(partial.glob(f"{ERROR}.*"))


def _silent_rank(partial: Path, timeout_seconds: float) -> str | None:
    for path in sorted(partial.glob(".beat-*")):
        try:
            silence = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        if silence > timeout_seconds:
            return f"process {path.name.removeprefix('.beat-')} gave no sign of life for {silence:.0f} s"
    return None


def _failure(partial: Path, code: int) -> GroundupError:
    """Return the error of the rank that failed first; one that was only told to stop because another died is not it."""
    for path in sorted(partial.glob(f"{ERROR}.*"), key=lambda path: path.stat().st_mtime):
        try:
            told: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError:
            continue
        if told["exit_code"] in (130, 143):
            continue
        error = StageError(str(told["message"]))
        error.exit_code = int(told["exit_code"])
        return error
    if code < 0:
        hint = " (the system may have run out of memory)" if code == -signal.SIGKILL else ""
        return StageError(f"killed by {signal.Signals(-code).name}{hint}")
    return StageError(f"one of its processes died (exit code {code}); its log tells more. Run again to go on from its last state")


def _interrupted(stop: _Stop, partial: Path) -> GroundupError:
    saved = any(path.is_file() for path in (partial / CHECKPOINTS).rglob("*"))
    what = "its state is saved, the same command goes on from it" if saved else "nothing of it is saved, so it begins again"
    error = Interrupted(f"stopped on request; {what}")
    error.exit_code = 128 + stop.number
    return error


def _record(job: Job, partial: Path) -> Record:
    inputs = {
        role: [InputEntry(stage=record.stage, fingerprint=record.fingerprint) for record in map(Record.load, paths)]
        for role, paths in job.inputs.items()
    }
    metrics = partial / "metrics.json"
    if not metrics.exists():
        raise StoreError(f"{job.node}: the stage ended without writing metrics.json; its files were lost, run again")
    attempts = Attempts(partial)
    facts = provenance(job, partial, attempts)
    write_json(partial / "machine.json", machine(job, attempts))
    return Record(
        name=job.node,
        stage=job.stage,
        produces=job.produces,
        fingerprint=job.fingerprint,
        identity=job.identity,
        inputs=inputs,
        files=manifest(partial),
        metrics=json.loads(metrics.read_bytes()),
        provenance=facts,
    )


if __name__ == "__main__":
    sys.exit(main())
