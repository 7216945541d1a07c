"""Where an artifact came from: facts for its record (publishable), and facts about the machine (kept beside it)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.attempts import Attempts
from pipeline.job import Job
from pipeline.launch import project_root


def provenance(job: Job, partial: Path, attempts: Attempts) -> dict[str, Any]:
    """Return the facts that go into the record: no path, no host."""
    try:
        versions = json.loads((partial / ".versions.json").read_bytes())
    except (OSError, ValueError):
        versions = {}
    return {
        "groundup": __version__,
        "commit": job.commit,
        "versions": versions,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "attempts": attempts.count,
        "wall_seconds": attempts.total("wall_seconds"),
        "cpu_seconds": attempts.total("cpu_seconds"),
        "peak_memory_gib": attempts.peak_memory_gib(),
    }


def machine(job: Job, attempts: Attempts) -> dict[str, Any]:
    """Return the facts about this machine."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": job.cores,
        "gpu_ids": job.gpu_ids,
        "processes": job.launch.processes,
        "recipe": job.recipe,
        "wall_seconds": attempts.total("wall_seconds"),
        "cpu_seconds": attempts.total("cpu_seconds"),
        "peak_memory_gib": attempts.peak_memory_gib(),
    }


@cache
def checkout_commit() -> str:
    """Commit of the checkout, with `+changes` when files differ from it; empty outside a repository."""
    command = ["git", "-C", str(project_root()), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)"
