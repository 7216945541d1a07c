"""A job: everything that a worker needs to run one node anywhere, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.plan import Plan
from pipeline.process import process_id
from pipeline.recipe import Launch
from pipeline.store import Store


class Job(BaseModel):
    """One node to run; it travels as JSON (to the worker's standard input, and to each rank as a file)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    node: str
    stage: str
    produces: str
    fingerprint: str
    identity: dict[str, Any]
    config: dict[str, Any]
    inputs: dict[str, list[Path]]
    launch: Launch
    store: Path
    offline: bool
    force: bool
    cores: int
    gpu_ids: list[int] = []
    driver: tuple[int, int]


class Outcome(BaseModel):
    """How a job ended, as the worker's last line of output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: str
    """done, cached, failed or interrupted."""
    exit_code: int = 0
    message: str = ""
    wall_seconds: float = 0.0


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
    )
