"""The default executor: detached worker processes on this machine, with GPU ids handed out and taken back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

from pydantic import ValidationError

from pipeline.errors import RecipeError
from pipeline.graph import Node
from pipeline.job import Job, Outcome
from pipeline.launch import project_root


class LocalExecutor:
    """Runs at most `jobs` workers at a time; a job that wants GPUs waits until enough are free."""

    def __init__(self, *, jobs: int) -> None:
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="worker")
        self._changed = threading.Condition()
        self._running: set[_Worker] = set()
        self._spare: _Worker | None = None
        self._cancelled = False

    @cached_property
    def _free(self) -> list[str]:
        """Ids of the GPUs that no job has; looked up when the first job wants one, as asking the driver takes seconds."""
        return visible_gpus()

    @cached_property
    def _num_gpus(self) -> int:
        return len(self._free)

    def check(self, nodes: Iterable[Node]) -> None:
        """Raise RecipeError if one of `nodes` wants more GPUs than there are."""
        for node in nodes:
            if node.launch.gpus and node.launch.gpus > self._num_gpus:
                key = f"stages.{node.name.partition('@')[0]}.launch"
                remedy = f"{key}.gpus={self._num_gpus}"
                if self._num_gpus and node.launch.processes > 1:
                    remedy += f" {key}.processes={self._num_gpus}"  # each process uses one GPU
                raise RecipeError(
                    f"stage '{node.name}': launch.gpus is {node.launch.gpus}, but this machine has {self._num_gpus}; set {remedy}"
                )

    def submit(self, job: Job) -> Future[Outcome]:
        """Start `job` when a slot and its GPUs are free; `check` has said that they can be."""
        return self._pool.submit(self._run, job)

    def cancel(self) -> None:
        """Send SIGTERM to every worker; each saves its state."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
            for worker in self._running:
                worker.stop()

    def shutdown(self) -> None:
        """Wait until nothing runs."""
        self._pool.shutdown()
        if self._spare:
            self._spare.dismiss()
            self._spare = None

    def _run(self, job: Job) -> Outcome:
        if not job.launch.gpus:
            return self._run_worker(job)
        gpu_ids = self._take_gpus(job.launch.gpus)
        try:
            return self._run_worker(job.model_copy(update={"gpu_ids": gpu_ids}))
        finally:
            with self._changed:
                self._free[:] = sorted([*self._free, *gpu_ids])
                self._changed.notify_all()

    def _take_gpus(self, number: int) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or len(self._free) >= number)
            return [self._free.pop(0) for _ in range(0 if self._cancelled else number)]

    def _run_worker(self, job: Job) -> Outcome:
        with self._changed:
            if self._cancelled:
                return Outcome(state="interrupted", exit_code=143, message="stopped before it began")
            worker = self._spare or _Worker()
            self._running.add(worker)
            self._spare = _Worker()
        try:
            return worker.work(job)
        finally:
            with self._changed:
                self._running.discard(worker)


class _Worker:
    """A detached worker process that waits for its job on standard input, and ends when there is none.

    One is kept ready while another works, so that its start-up costs a run nothing. Output goes to files, not to pipes: a
    worker must be able to finish after its driver was killed.
    """

    def __init__(self) -> None:
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the worker has ended)
        self._complained = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.worker"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))},
            stdin=subprocess.PIPE,
            stdout=self._told,
            stderr=self._complained,
            start_new_session=True,
        )

    def work(self, job: Job) -> Outcome:
        """Hand over the job and wait for its outcome."""
        try:
            self._process.communicate(job.model_dump_json().encode())
        except BrokenPipeError:
            self._process.wait()
        self._told.seek(0)
        self._complained.seek(0)
        outcome = _outcome(self._process.returncode, self._told.read(), self._complained.read())
        self._close_files()
        return outcome

    def stop(self) -> None:
        """Ask a working one to save its state and end."""
        self._process.send_signal(signal.SIGTERM)

    def dismiss(self) -> None:
        """Let an idle one go."""
        self._process.communicate(b"")
        self._close_files()

    def _close_files(self) -> None:
        self._told.close()
        self._complained.close()


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
