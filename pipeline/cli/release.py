"""`groundup publish` and `groundup pull`: start the programs of the release wing in this terminal."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from pipeline.cli.artifacts import find_artifact
from pipeline.errors import RecipeError
from pipeline.launch import project_root
from pipeline.store import Store

_OURS = frozenset({"artifact", "command", "store", "space"})
"""What the command line reads itself; the rest is the program's."""
_MODEL_ONLY = frozenset({"part", "base_repo", "license", "show_card", "private", "revision", "create_pr", "tag"})
"""What a Space has no use for."""


def publish(arguments: argparse.Namespace) -> int:
    """Assemble and check what is published of an artifact; upload it with --push."""
    artifact = find_artifact(Store(arguments.store), arguments.artifact)
    program = "space" if arguments.space else "publish"
    others = ({"model_repo", "python"} if program == "publish" else _MODEL_ONLY) & _given(arguments).keys()
    if others:
        verb = "goes with --space only" if program == "publish" else "does not go with --space"
        raise RecipeError(f"--{min(others).replace('_', '-')} {verb}; leave it out")
    if program == "space" and arguments.model_repo is None:
        raise RecipeError("--space needs --model-repo OWNER/NAME: where the model is published that the app loads")
    command = [sys.executable, "-m", f"stages.release.{program}", str(artifact.path), *_flags(arguments)]
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
    for name, value in _given(arguments).items():
        flag = f"--{name.replace('_', '-')}"
        flags.append(flag if value is True else f"{flag}={value}")
    return flags


def _given(arguments: argparse.Namespace) -> dict[str, object]:
    return {name: value for name, value in vars(arguments).items() if name not in _OURS and value not in (None, False)}
