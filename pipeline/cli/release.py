"""`groundup publish` and `groundup pull`: start the programs of the release wing in this terminal."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from pipeline.cli.artifacts import find_artifact
from pipeline.launch import project_root
from pipeline.store import Store

_OURS = frozenset({"artifact", "command", "store"})
"""What the command line reads itself; the rest is the program's."""


def publish(arguments: argparse.Namespace) -> int:
    """Assemble and check what is published of an artifact; upload it with --push."""
    artifact = find_artifact(Store(arguments.store), arguments.artifact)
    command = [sys.executable, "-m", "stages.release.publish", str(artifact.path), *_flags(arguments)]
    return subprocess.call(command, env=os.environ | {"PYTHONPATH": str(project_root())})


def pull(arguments: argparse.Namespace) -> int:
    """Fetch a model from the Hub and check it; nothing of it is executed."""
    flags = {"--output": arguments.output, "--max-gib": arguments.max_gib}
    given = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
    command = [sys.executable, "-m", "stages.release.pull", *given, "--", arguments.repo]
    return subprocess.call(command, env=os.environ | {"PYTHONPATH": str(project_root())})


def _flags(arguments: argparse.Namespace) -> list[str]:
    """Return the given options as they were written."""
    flags = []
    for name, value in vars(arguments).items():
        flag = f"--{name.replace('_', '-')}"
        if name not in _OURS and value is not None and value is not False:
            flags.append(flag if value is True else f"{flag}={value}")
    return flags
