"""The default executor: detached worker processes on this machine, with GPU ids handed out and taken back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from pydantic import ValidationError

from pipeline.errors import RecipeError
from pipeline.job import Job, Outcome
from pipeline.launch import project_root


class LocalExecutor:
    """Runs at most `jobs` workers at a time; a job that wants GPUs waits until enough are free."""

    def __init__(self, *, jobs: int) -> None:
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="worker")
        self._free = visible_gpus()
        self._num_gpus = len(self._free)
        self._changed = threading.Condition()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._cancelled = False

    def submit(self, job: Job) -> Future[Outcome]:
        """Start `job` when a slot and its GPUs are free.

        Raises:
            RecipeError: it wants more GPUs than there are.
        """
        if job.launch.gpus > self._num_gpus:
            raise RecipeError(
                f"stage '{job.node}': launch.gpus is {job.launch.gpus}, but this machine has {self._num_gpus}; "
                f"set stages.{job.node.partition('@')[0]}.launch.gpus={self._num_gpus}"
            )
        return self._pool.submit(self._run, job)

    def cancel(self) -> None:
        """Send SIGTERM to every worker; each saves its state."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
            for process in self._running:
                process.send_signal(signal.SIGTERM)

    def shutdown(self) -> None:
        """Wait until nothing runs."""
        self._pool.shutdown()

    def _run(self, job: Job) -> Outcome:
        gpu_ids = self._take_gpus(job.launch.gpus)
        try:
            return self._run_worker(job.model_copy(update={"gpu_ids": gpu_ids}))
        finally:
            with self._changed:
                self._free = sorted([*self._free, *gpu_ids])
                self._changed.notify_all()

    def _take_gpus(self, number: int) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or len(self._free) >= number)
            return [self._free.pop(0) for _ in range(0 if self._cancelled else number)]

    def _run_worker(self, job: Job) -> Outcome:
        """Output goes to a file, not to a pipe: a worker must be able to finish after its driver was killed."""
        path = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH", "")]))
        with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as complained:
            with self._changed:
                if self._cancelled:
                    return Outcome(state="interrupted", exit_code=143, message="stopped before it began")
                process = subprocess.Popen(
                    [sys.executable, "-m", "pipeline.worker"],
                    env=os.environ | {"PYTHONPATH": path},
                    stdin=subprocess.PIPE,
                    stdout=told,
                    stderr=complained,
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                process.communicate(job.model_dump_json().encode())
            except BrokenPipeError:
                process.wait()
            with self._changed:
                self._running.discard(process)
            told.seek(0)
            complained.seek(0)
            return _outcome(process.returncode, told.read(), complained.read())


def _outcome(exit_code: int, told: bytes, complained: bytes) -> Outcome:
    """Read the worker's last line; a worker that died without one has failed."""
    try:
        return Outcome.model_validate_json(told.splitlines()[-1])
    except (IndexError, ValidationError):
        reason = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with exit code {exit_code}"
        tail = complained.decode(errors="replace").strip().splitlines()[-1:]
        return Outcome(state="failed", exit_code=1, message=f"its worker was {reason}; run again. {' '.join(tail)}".strip())


def visible_gpus() -> list[str]:
    """Return the ids of the NVIDIA GPUs that this process may use, without loading a tensor library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [part.strip() for part in visible.split(",") if part.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
