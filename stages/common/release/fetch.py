"""Fetch a model from the Hub: by commit, only what may come, every byte checked. Nothing that comes is executed.

Two places to fetch to: a folder (`groundup pull`), or the cache of `huggingface_hub` (the base of a fine-tuning). A transfer
that was cut goes on where it stopped, in both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx2 import ConnectError
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is of the HTTP library below
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.repocard import metadata_load
from yaml import YAMLError

from pipeline.contract import sha256_file, write_bytes
from pipeline.errors import DataError
from stages.common.release.contents import MAX_TEXT_BYTES, Choice, RemoteFile, choose_plain, choose_published
from stages.common.release.layout import CARD, MANIFEST, Manifest, RepoType, differences
from stages.common.release.model_checks import model_problems
from stages.common.release.origin import provenance_problems
from stages.common.release.output import without_signatures
from stages.common.release.patience import is_passing, persist

DEFAULT_MAX_BYTES = 20 * 2**30


@dataclass(frozen=True)
class Fetched:
    """A model or data set that lies in a folder here and passed all checks.

    Attributes:
        folder: where it lies.
        repo: `owner/name`.
        commit: 40 hex digits; the same commit is the same content for ever.
        manifest: of a repository that Groundup published, None for any other.
        left_out: files that were not fetched, each with the reason.
    """

    folder: Path
    repo: str
    commit: str
    manifest: Manifest | None
    left_out: Mapping[str, str]


def resolve_commit(repo: str, revision: str, *, offline: bool = False, repo_type: RepoType = "model") -> str:
    """Return the commit that `revision` (branch, tag, commit) is on the Hub, or in the local cache when `offline`.

    Raises:
        DataError: the Hub does not say, or the cache does not know.
    """
    with hub_errors(repo, revision):
        if offline:
            return HfApi().resolve_revision(repo, revision=revision, local_files_only=True).resolved
        found = persist(
            lambda: HfApi().repo_info(repo, revision=revision, repo_type=repo_type), passing=_is_worth_waiting_for, tell=_tell
        )
        return str(found.sha)


def listing(repo: str, commit: str, *, repo_type: RepoType = "model") -> dict[str, RemoteFile]:
    """Return the files of the repository `repo` at `commit`; raises DataError when the Hub does not say."""
    with hub_errors(repo, commit):
        tree = HfApi().list_repo_tree(repo, revision=commit, recursive=True, repo_type=repo_type)
        found = [file for file in tree if isinstance(file, RepoFile)]
    return {file.path: RemoteFile(file.size, file.lfs.sha256 if file.lfs else None) for file in found}


def published_artifact(repo: str, commit: str) -> str | None:
    """Return the fingerprint of the artifact that the repository holds at `commit`; None: Groundup did not publish it."""
    if MANIFEST not in listing(repo, commit):
        return None
    with hub_errors(repo, commit):
        return Manifest.load(Path(hf_hub_download(repo, MANIFEST, revision=commit)).parent).artifact


def published_license(repo: str, commit: str, *, offline: bool = False) -> dict[str, Any]:
    """Return `license` and `license_name` as the card of the repository states them at `commit`, those that it states.

    Offline the card may not be in the local cache; then nothing is known.

    Raises:
        DataError: the Hub does not say, or the card's head cannot be read.
    """
    try:
        with hub_errors(repo, commit):
            path = Path(hf_hub_download(repo, CARD, revision=commit, local_files_only=offline))
    except DataError:
        if offline:
            return {}
        raise
    try:
        stated = metadata_load(path) or {}
    except (ValueError, YAMLError) as error:
        raise DataError(f"hub:{repo}@{commit[:8]}: the head of {CARD} cannot be read ({_line(error)})") from None
    return {key: stated[key] for key in ("license", "license_name") if stated.get(key)}


def fetch(
    repo: str,
    commit: str,
    *,
    folder: Path | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    repo_type: RepoType = "model",
) -> Fetched:
    """Fetch the repository `repo` at `commit` into `folder` (None: into the cache) and check it.

    A data set comes only when Groundup published it: nothing else says what its files are.

    Raises:
        DataError: the Hub cannot be reached, or what it holds may not come or is inconsistent; the message lists all of it.
    """
    place: dict[str, Any] = {"repo_type": repo_type} | ({"local_dir": folder} if folder else {})
    files = listing(repo, commit, repo_type=repo_type)
    if repo_type != "model" and MANIFEST not in files:
        refuse(repo, commit, [f"it is a {repo_type} that Groundup did not publish (it has no {MANIFEST}); only such are pulled"])
    with hub_errors(repo, commit):
        manifest = None
        if MANIFEST in files:
            if files[MANIFEST].bytes > MAX_TEXT_BYTES:
                raise DataError(f"hub:{repo}@{commit[:8]}: {MANIFEST} has {files[MANIFEST].bytes:,} bytes; that is no manifest")
            manifest = Manifest.load(Path(hf_hub_download(repo, MANIFEST, revision=commit, **place)).parent)
            if manifest.repo_type != repo_type:
                refuse(repo, commit, [f"its {MANIFEST} is that of a {manifest.repo_type}, the repository is a {repo_type}"])
        choice = choose(files, manifest, max_bytes)
        refuse(repo, commit, choice.problems)
        # Patterns of fnmatch would take a name with brackets for something else, so each such character stands for itself.
        patterns = [_literal(name) for name in choice.wanted]
        where = Path(snapshot_download(repo, revision=commit, allow_patterns=patterns, **place))
    problems = unlike(where, {name: files[name] for name in choice.wanted})
    for name in problems:  # removed, so that the next attempt fetches it again
        Path(os.path.realpath(where / name)).unlink(missing_ok=True)
        (where / name).unlink(missing_ok=True)
    refuse(repo, commit, [f"{name} {line}" for name, line in problems.items()] or inconsistencies(where, manifest))
    return Fetched(where, repo, commit, manifest, choice.left_out)


def cached(repo: str, commit: str) -> Fetched:
    """Return the model that an earlier `fetch` brought into the cache, checked again; the network is not used.

    Raises:
        DataError: it is not there, or not whole.
    """
    with hub_errors(repo, commit):
        # One file that every model has: the folder of the commit lies around it.
        where = Path(snapshot_download(repo, revision=commit, local_files_only=True, allow_patterns=["config.json", MANIFEST]))
    manifest = Manifest.load(where) if (where / MANIFEST).exists() else None
    refuse(repo, commit, inconsistencies(where, manifest))
    return Fetched(where, repo, commit, manifest, {})


def remember_revision(repo: str, revision: str, commit: str) -> None:
    """Note in the Hub's cache that `revision` was last seen at `commit`, for work without a network.

    The layout is that of `huggingface_hub`: https://huggingface.co/docs/huggingface_hub/guides/manage-cache#refs
    """
    if revision != commit:
        path = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"), "refs", revision)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, commit.encode())


def inconsistencies(folder: Path, manifest: Manifest | None) -> list[str]:
    """Return what is wrong with a fetched folder: hashes and records where there is a manifest, the model in any case."""
    problems = []
    if manifest is not None:
        problems = [line for line in differences(folder, manifest) if not line.startswith(".cache/")]
        problems += provenance_problems(folder, manifest)
    return problems + model_problems(folder, own=manifest is not None)


def unlike(folder: Path, files: Mapping[str, RemoteFile]) -> dict[str, str]:
    """Return which of `files` is not under `folder` as the Hub lists it: name -> in what it differs."""
    found = {}
    for name, listed in files.items():
        path = folder / name
        if not path.is_file():
            found[name] = "is missing"
        elif path.stat().st_size != listed.bytes:
            found[name] = f"has {path.stat().st_size:,} bytes, the Hub lists {listed.bytes:,}"
        elif listed.sha256 not in (None, sha256_file(path)):
            found[name] = "does not have the sha256 that the Hub lists"
    return found


def refuse(repo: str, commit: str, problems: list[str] | tuple[str, ...]) -> None:
    """Raise DataError with all of `problems`, when there are any."""
    if problems:
        lines = "".join(f"\n  - {line}" for line in problems)
        raise DataError(f"hub:{repo}@{commit[:8]} is refused:{lines}")


@contextmanager
def hub_errors(repo: str, revision: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into a DataError that says what to do."""
    where = f"hub:{repo}@{revision[:40]}"
    try:
        yield
    except HFValidationError:
        raise DataError(f"{where}: a repository is written owner/name, in letters, digits, '-', '_' and '.'") from None
    except GatedRepoError:
        raise DataError(f"{where} is gated: ask for access on its page, then log in with `hf auth login`") from None
    except RepositoryNotFoundError:
        raise DataError(
            f"{where}: no such repository, or it is private; check the name, and log in with `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise DataError(f"{where}: the repository has no such revision; name a branch, a tag or a commit") from None
    except (LocalEntryNotFoundError, RevisionResolutionError) as error:
        if isinstance(error.__cause__, HTTPError):
            raise DataError(f"{where}: the Hub cannot be reached ({_line(error.__cause__)}); check the network") from None
        raise DataError(
            f"{where} is not in the local cache; run once without --offline, then it works without a network"
        ) from None
    except HfHubHTTPError as error:
        raise DataError(f"{where}: the Hub refused ({_line(error)}); try again later") from None
    except HTTPError as error:
        raise DataError(
            f"{where}: the Hub cannot be reached ({_line(error)}); check the network, or run with --offline"
        ) from None
    except OSError as error:
        raise DataError(f"{where} cannot be fetched ({_line(error)}); what came is kept, run again to go on") from None


def _is_worth_waiting_for(error: BaseException) -> bool:
    """Who cannot reach the Hub at all wants to know at once."""
    return is_passing(error) and not isinstance(error, ConnectError)


def _tell(line: str) -> None:
    """Say of a wait where it disturbs no answer: a plan may be printed as JSON."""
    sys.stderr.write(f"{line}\n")


def choose(files: Mapping[str, RemoteFile], manifest: Manifest | None, max_bytes: int) -> Choice:
    """Choose what of a repository is fetched; see `contents`."""
    if manifest is None:
        return choose_plain(files, max_bytes=max_bytes)
    return choose_published(files, manifest, max_bytes=max_bytes)


def _literal(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _line(error: BaseException) -> str:
    return without_signatures(next(iter(str(error).splitlines()), "")) or type(error).__name__
