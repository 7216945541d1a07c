"""What stages read from outside the store, and how its content becomes part of a fingerprint.

Paths, hosts and times never enter; content does: a local file by its sha256, a card by the front matter that is used,
a Hub repository by its commit.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError


@dataclass(frozen=True)
class LocalFiles:
    """Files, folders (all files below, but nothing hidden, such as `.git`) and glob patterns on this machine; `~` is expanded.

    Content and file type count; names count only where `named`, as in the folder of a model.
    """

    patterns: tuple[str, ...]
    named: bool = False


@dataclass(frozen=True)
class CardUse:
    """A data card by name; the sources that it names are followed."""

    name: str


@dataclass(frozen=True)
class HubRepo:
    """A repository on the Hub; `revision` (branch, tag or commit) is resolved to a commit."""

    repo: str
    revision: str = "main"
    repo_type: str = "model"


@dataclass(frozen=True)
class Fact:
    """A named value that the result depends on, such as the version of Python for its own sources."""

    name: str
    value: str


Source = LocalFiles | CardUse | HubRepo | Fact


def expand(patterns: tuple[str, ...] | list[str]) -> list[Path]:
    """Return the files that `patterns` name, each once, sorted by path.

    Raises:
        DataError: a pattern names nothing, or a link that points nowhere.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        matched = _files_of(pattern)
        if not matched:
            raise DataError(f"files: '{pattern}' names no file here; give a file, a folder or a glob pattern that exists")
        for path in matched:
            if not path.exists():
                raise DataError(f"files: '{path}' is a link to nothing; remove it or restore what it points to")
            found[os.path.realpath(path)] = path
    return sorted(found.values())


def _files_of(pattern: str) -> list[Path]:
    path = Path(os.path.expanduser(pattern))
    if path.is_dir():
        return _files_below(path)
    if path.exists() or path.is_symlink():
        return [path]
    return [Path(name) for name in glob.glob(str(path), recursive=True) if not os.path.isdir(name)]


def _files_below(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # os.walk goes on into what is left
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return found
