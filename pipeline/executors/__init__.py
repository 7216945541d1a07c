"""Executors: where jobs run. The one interface is `submit(job) -> concurrent.futures.Future[Outcome]`."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Protocol

from pipeline.errors import RecipeError, nearest
from pipeline.graph import Node
from pipeline.job import Job, Outcome

KNOWN = ("local",)


class Executor(Protocol):
    """Runs jobs; a job may wait for a free slot."""

    def check(self, nodes: Iterable[Node]) -> None:
        """Raise RecipeError if it can never run one of `nodes`: better before the first than after hours."""
        ...

    def submit(self, job: Job) -> Future[Outcome]:
        """Start `job` as soon as there is room; the future never raises for a failed stage."""
        ...

    def cancel(self) -> None:
        """Ask every running job to stop and leave a resumable state."""
        ...

    def shutdown(self) -> None:
        """Wait until nothing runs."""
        ...


def make_executor(name: str, *, jobs: int) -> Executor:
    """Return the executor called `name`.

    Raises:
        RecipeError: there is none of that name.
    """
    if name != "local":
        raise RecipeError(f"--executor {name}: unknown executor ({nearest(name, KNOWN)})")
    from pipeline.executors.local import LocalExecutor

    return LocalExecutor(jobs=jobs)
