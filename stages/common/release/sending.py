"""Start the program that talks to the Hub, in a process of its own and with the environment that the user gave."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.artifact import Artifact
from pipeline.errors import RecipeError

PROJECT = Path(__file__).resolve().parents[3]
_SWITCHES = ("push", "public", "create_pr")
_VALUES = ("revision", "tag", "message")


def send(
    folder: Path, options: argparse.Namespace, artifact: Artifact | None, environment: Mapping[str, str], *, lock: int
) -> int:
    """Compare `folder` with its repository, and with --push upload it; return the exit code.

    Args:
        folder: assembled.
        options: what the user asked for.
        artifact: beside which the fact is recorded; None: it is not.
        environment: of the user: token, endpoint, proxies.
        lock: from `destination.alone`. The upload inherits it, so that what it sends is what was checked: were it free for a
            moment, another publish could put something else there.
    """
    return _run([str(folder), *_flags(options, artifact), f"--lock={lock}"], environment, inherited=(lock,))


def check_before(options: argparse.Namespace, artifact: Artifact | None, environment: Mapping[str, str]) -> int:
    """Check all that --push needs and that is known beforehand: names, flags, network, token, what it may do; return the code.

    Whoever forgot to log in hears it at once, not after a model was assembled and tried.

    Raises:
        RecipeError: --push and --offline at once.
    """
    if not options.push:
        return 0
    if options.offline:
        raise RecipeError("--offline does not go with --push: an upload needs the network; leave one of them out")
    return _run(_flags(options, artifact), environment)


def _flags(options: argparse.Namespace, artifact: Artifact | None) -> list[str]:
    given = vars(options)
    flags = [f"--repo={options.repo}", *(f"--{name.replace('_', '-')}" for name in _SWITCHES if given.get(name))]
    flags += [f"--{name}={given[name]}" for name in _VALUES if given.get(name) is not None]
    if artifact is not None:  # beside it: a file inside would damage it
        flags.append(f"--record={artifact.path.with_name(artifact.path.name + '.published.json')}")
    return flags


def _run(arguments: list[str], environment: Mapping[str, str], *, inherited: tuple[int, ...] = ()) -> int:
    command = [sys.executable, "-m", "stages.release.push", *arguments]
    sys.stdout.flush()
    return subprocess.call(command, env=dict(environment) | {"PYTHONPATH": str(PROJECT)}, pass_fds=inherited)
