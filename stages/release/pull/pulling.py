"""From `owner/name@revision` to a folder that appears in one rename, when all of it came and passed its checks."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.contract import fsync_directory, fsync_tree
from pipeline.errors import DataError, RecipeError
from stages.common.release.fetch import Fetched, choose, fetch, inconsistencies, listing, resolve_commit, unlike
from stages.common.release.layout import MANIFEST, Manifest, RepoType

DEFAULT_FOLDER = "pulled"
_REPO = re.compile(r"(?:hub:)?(?P<data>datasets/)?(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII)
_TRANSFER = ".cache"
"""Where `huggingface_hub` keeps the state of its transfers, inside the folder that it fills."""


def pull(text: str, *, output: Path | None, max_bytes: int) -> Fetched:
    """Fetch the repository that `text` names, at one commit, into `output`.

    Args:
        text: `owner/name` or `owner/name@revision`; `datasets/` before it names a data set, as in its address.
        output: a folder that is not there yet; None: named by repository and commit.
        max_bytes: most that may be fetched.

    Raises:
        RecipeError: the name is malformed, or the folder is taken by something else.
        DataError: the Hub, or what it holds, is not as it should be; then no folder appears.
    """
    if output is not None and not os.path.abspath(output).strip(os.sep):
        raise RecipeError(f"--output {output} is the root of this machine; name a new folder")
    match = _REPO.fullmatch(text)
    if match is None:
        raise RecipeError(f"'{text}' is no repository; write owner/name or owner/name@revision")
    repo = match["repo"]
    repo_type: RepoType = "dataset" if match["data"] else "model"
    commit = resolve_commit(repo, match["revision"] or "main", repo_type=repo_type)
    shown = output or Path(DEFAULT_FOLDER, f"{repo.replace('/', '--')}-{commit[:8]}")
    target = Path(os.path.abspath(shown))
    with _alone(target, commit) as partial:
        if target.exists() or target.is_symlink():
            return _existing(shown, repo, commit, max_bytes, repo_type)
        try:
            fetched = fetch(repo, commit, folder=partial, max_bytes=max_bytes, repo_type=repo_type)
        except DataError:
            _drop_if_empty(partial)
            raise
        shutil.rmtree(partial / _TRANSFER, ignore_errors=True)
        fsync_tree(partial)
        os.rename(partial, target)
        fsync_directory(target.parent)
    return replace(fetched, folder=shown)


@contextmanager
def _alone(target: Path, commit: str) -> Iterator[Path]:
    """Yield the folder to fill, beside `target` and hidden; a second pull into the same place waits."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(target.with_name(f".{target.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RecipeError(f"--output {target} cannot be written: {error.strerror}; choose another folder") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield target.with_name(f".{target.name}.{commit[:8]}.partial")
    finally:
        os.close(lock)


def _existing(target: Path, repo: str, commit: str, max_bytes: int, repo_type: RepoType) -> Fetched:
    """Return what an earlier pull of this commit left, checked again.

    Raises:
        RecipeError: something else lies there.
    """
    files = listing(repo, commit, repo_type=repo_type)
    manifest = Manifest.load(target) if (target / MANIFEST).is_file() else None
    choice = choose(files, manifest, max_bytes)
    problems = [f"{name} {line}" for name, line in unlike(target, {name: files[name] for name in choice.wanted}).items()]
    if problems := [*choice.problems, *problems] or inconsistencies(target, manifest):
        lines = "".join(f"\n  - {line}" for line in problems)
        raise RecipeError(f"'{target}' is there and is not {repo} at {commit[:8]}; remove it, or name another --output:{lines}")
    return Fetched(target, repo, commit, manifest, choice.left_out)


def _drop_if_empty(partial: Path) -> None:
    """A refusal before the first file leaves nothing; what a cut transfer brought stays, to go on from."""
    if partial.is_dir() and not any(path.is_file() for path in partial.rglob("*")):
        shutil.rmtree(partial)
