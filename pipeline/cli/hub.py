"""`groundup pull`: what is fetched from the Hub; the work is done by a program of the release wing."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from pipeline.launch import project_root


def pull(arguments: argparse.Namespace) -> int:
    """Fetch a model from the Hub and check it."""
    flags = {"--output": arguments.output, "--max-gib": arguments.max_gib}
    given = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
    command = [sys.executable, "-m", "stages.release.pull", *given, "--", arguments.repo]
    return subprocess.call(command, env=os.environ | {"PYTHONPATH": str(project_root())})
