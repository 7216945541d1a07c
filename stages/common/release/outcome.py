"""What the checks of an assembled folder found, kept beside it as `NAME.checks.json`, so that what was refused stays here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.contract import sha256_file, write_json
from pipeline.errors import DataError
from stages.common.release.layout import MANIFEST

_AGAIN = "run `groundup publish` again, which assembles and checks it"


class Outcome(BaseModel):
    """What the file holds; the hash binds it to the manifest of the folder, and so to every byte in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    repo: str
    manifest_sha256: str
    problems: list[str]
    evidence: list[str]


def outcome_path(folder: Path) -> Path:
    """Return where the outcome for `folder` lies."""
    return folder.with_name(f"{folder.name}.checks.json")


def save_outcome(folder: Path, repo: str, problems: Sequence[str], evidence: Sequence[str]) -> Path:
    """Write the outcome beside the folder and return its path."""
    found = Outcome(repo=repo, manifest_sha256=sha256_file(folder / MANIFEST), problems=list(problems), evidence=list(evidence))
    write_json(outcome_path(folder), found.model_dump())
    return outcome_path(folder)


def check_outcome(folder: Path) -> None:
    """Refuse a folder that was refused, or was assembled anew and not checked to the end; one without an outcome passes.

    Raises:
        DataError: it may not leave.
    """
    folder = folder.absolute()
    path = outcome_path(folder)
    if not path.exists():
        return
    try:
        found = Outcome.model_validate(json.loads(path.read_bytes()))
    except (ValueError, RecursionError, ValidationError):
        raise DataError(f"{path}: not the outcome of checks; {_AGAIN}") from None
    if found.manifest_sha256 != sha256_file(folder / MANIFEST):
        raise DataError(f"{folder}: {path.name} is of another state of it, so nobody checked what is there; {_AGAIN}")
    if found.problems:
        lines = "".join(f"\n  - {line}" for line in found.problems)
        raise DataError(f"{folder}: refused when it was checked; put this right, then {_AGAIN}:{lines}")
