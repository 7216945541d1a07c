"""A job: everything that a worker needs to run one node anywhere, as plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.launch import Launch


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
    gpu_ids: list[str] = []
    driver: tuple[int, int]
    commit: str
    """Commit of the checkout when the run began."""


class Outcome(BaseModel):
    """How a job ended, as the worker's last line of output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: str
    """done, cached, failed or interrupted."""
    exit_code: int = 0
    message: str = ""
    wall_seconds: float = 0.0
