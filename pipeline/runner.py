"""Runs a plan: each node as soon as all that it needs is there; failures stop their dependants, siblings finish."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from types import FrameType
from typing import Any

from pipeline.executors import Executor
from pipeline.job import Job, Outcome
from pipeline.plan import Plan, record_adoption
from pipeline.process import process_id
from pipeline.provenance import checkout_commit
from pipeline.store import Store


@dataclass
class RunState:
    """How far a run is; the progress display reads it."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    stopped_by: int = 0

    @property
    def exit_code(self) -> int:
        """0 done, 1 or 2 as the first failure says, 130 or 143 interrupted."""
        if self.stopped_by:
            return 128 + self.stopped_by
        return next((outcome.exit_code for outcome in self.outcomes.values() if outcome.exit_code), 0)


def run_plan(
    plan: Plan,
    store: Store,
    recipe: str,
    executor: Executor,
    *,
    offline: bool,
    cores: int,
    force: set[str],
    notify: Callable[[RunState], None],
) -> RunState:
    """Run what the plan says; every node that ends well is linked under `runs/<recipe>/`.

    Args:
        plan: from `make_plan`.
        store: where artifacts go.
        recipe: name of the recipe.
        executor: where jobs run.
        offline: forbids the network.
        cores: CPU cores for each job.
        force: nodes that run although they are cached.
        notify: called several times a second with the state.
    """
    state = RunState()
    order = TopologicalSorter(
        {name: {n for group in plan[name].node.needs.values() for n in group if n in plan} for name in plan}
    )
    order.prepare()
    futures: dict[Future[Outcome], str] = {}
    with _StopSignals(state, executor):
        while order.is_active():
            for name in order.get_ready():
                if outcome := _without_running(name, plan, store, recipe, state):
                    state.outcomes[name] = outcome
                    order.done(name)
                else:
                    job = make_job(plan, name, store, recipe, offline=offline, force=name in force, cores=cores)
                    futures[executor.submit(job)] = name
            if futures:
                _collect(futures, state, order, notify, lambda name: _link(plan, name, store, recipe))
        executor.shutdown()
    notify(state)
    return state


def run_job(job: Job, executor: Executor, notify: Callable[[RunState], None]) -> RunState:
    """Run one job alone; `notify` is called several times a second with the state."""
    state = RunState()
    with _StopSignals(state, executor):
        future = executor.submit(job)
        while not future.done():
            if future.running():
                state.running.setdefault(job.node, time.time())
            notify(state)
            wait([future], timeout=0.2)
        executor.shutdown()
    state.running.clear()
    state.outcomes[job.node] = future.result()
    notify(state)
    return state


def make_job(plan: Plan, name: str, store: Store, recipe: str, *, offline: bool, force: bool, cores: int) -> Job:
    """Return the job for node `name` of `plan`; what it needs must be planned under it."""
    planned = plan[name]
    inputs = {}
    for role, upstreams in planned.node.needs.items():
        inputs[role] = [store.place(plan[n].node.stage, plan[n].fingerprint).final.resolve() for n in upstreams]
    return Job(
        recipe=recipe,
        node=name,
        stage=planned.node.stage,
        produces=planned.node.config.produces,
        fingerprint=planned.fingerprint,
        identity=planned.identity,
        config=planned.node.config.model_dump(mode="json"),
        inputs=inputs,
        launch=planned.node.launch,
        store=store.root.resolve(),
        offline=offline,
        force=force,
        cores=cores,
        driver=process_id(),
        commit=checkout_commit(),
    )


def _without_running(name: str, plan: Plan, store: Store, recipe: str, state: RunState) -> Outcome | None:
    """Settle a node that need not, or cannot, run."""
    planned = plan[name]
    upstream = [n for group in planned.node.needs.values() for n in group]
    failed = [n for n in upstream if n in state.outcomes and state.outcomes[n].state not in ("done", "cached", "adopted")]
    if failed:
        how = state.outcomes[failed[0]].state
        return Outcome(state="skipped", message=f"needs {failed[0]}, which {'failed' if how == 'failed' else f'was {how}'}")
    if state.stopped_by:
        return Outcome(state="skipped", message="stopped before it began")
    if planned.state not in ("cached", "adopted"):
        return None
    if planned.state == "adopted":
        record_adoption(planned)
    _link(plan, name, store, recipe)
    return Outcome(state=planned.state)


def _link(plan: Plan, name: str, store: Store, recipe: str) -> None:
    planned = plan[name]
    store.link(recipe, name, store.place(planned.node.stage, planned.fingerprint).final)


def _collect(
    futures: dict[Future[Outcome], str],
    state: RunState,
    order: TopologicalSorter[str],
    notify: Callable[[RunState], None],
    link: Callable[[str], None],
) -> None:
    finished, _ = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
    for future, name in futures.items():
        if future.running():
            state.running.setdefault(name, time.time())
    for future in finished:
        name = futures.pop(future)
        state.running.pop(name, None)
        state.outcomes[name] = future.result()
        if state.outcomes[name].state in ("done", "cached"):
            link(name)
        order.done(name)
    notify(state)


class _StopSignals:
    """While a run lasts, Ctrl-C and SIGTERM ask the jobs to stop; a second one does nothing more, so no state is lost."""

    def __init__(self, state: RunState, executor: Executor) -> None:
        self._state = state
        self._executor = executor
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._stop)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if not self._state.stopped_by:
            self._state.stopped_by = number
            threading.Thread(target=self._executor.cancel, daemon=True).start()
