"""What the repository holds now, at one commit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from pipeline.contract import sha256_file
from pipeline.errors import Damaged
from stages.common.release.layout import MANIFEST, Manifest
from stages.release.push.hub import Hub

MAIN = "main"


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository: `oid` is git's name of the blob; a large file has its sha256 as well."""

    size: int
    oid: str
    sha256: str | None

    def is_content(self, path: Path, sha256: str) -> bool:
        """Whether the local file `path` with hash `sha256` is this file."""
        if self.sha256 is not None:
            return self.sha256 == sha256
        return self.size == path.stat().st_size and self.oid == git_oid(path)


@dataclass(frozen=True)
class Remote:
    """The repository at one commit.

    Attributes:
        commit: None when there is no repository (or none that we may see).
        has_branch: False when the branch asked for does not exist; the files are then those of main, where it would start.
        manifest: `groundup.json` as it is there, None when Groundup never published here.
    """

    commit: str | None
    has_branch: bool = False
    private: bool = True
    files: dict[str, RemoteFile] = field(default_factory=dict)
    manifest: Manifest | None = None
    broken_manifest: str = ""


def git_oid(path: Path) -> str:
    """Return git's name for the content of `path`. Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects"""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def read_remote(hub: Hub, cache: Path, revision: str | None = None) -> Remote:
    """Read what `revision` (default: the one that we publish to) holds.

    Raises:
        HubError: the Hub cannot be reached or refuses.
    """
    api, target = hub.api, hub.target
    wanted = revision or target.revision

    def look() -> tuple[str | None, bool, bool]:
        try:
            info, has_branch = api.repo_info(target.repo, repo_type=target.repo_type, revision=wanted), True
        except RevisionNotFoundError:
            info, has_branch = api.repo_info(target.repo, repo_type=target.repo_type), False
        except RepositoryNotFoundError as error:
            if type(error) is not RepositoryNotFoundError:  # gated
                raise
            return None, False, True
        return info.sha, has_branch, bool(info.private)

    commit, has_branch, private = hub.ask(look)
    if commit is None:
        return Remote(None)
    tree = hub.once(lambda: list(api.list_repo_tree(target.repo, repo_type=target.repo_type, revision=commit, recursive=True)))
    files = {
        entry.path: RemoteFile(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
        for entry in tree
        if isinstance(entry, RepoFile)
    }
    manifest, broken = None, ""
    if MANIFEST in files:
        try:
            manifest = Manifest.load(hub.download(MANIFEST, commit, cache).parent)
        except Damaged as error:
            broken = f"its {MANIFEST} cannot be read, so nothing there counts as written by Groundup ({error})"
    return Remote(commit, has_branch, private, files, manifest, broken)


def as_published(hub: Hub, remote: Remote, path: str, cache: Path) -> bool:
    """Whether the repository's file `path` is as the last publication by Groundup left it (nobody edited it since)."""
    published = remote.manifest.files.get(path) if remote.manifest else None
    if path == MANIFEST:
        return remote.manifest is not None
    if published is None or remote.commit is None:
        return False
    there = remote.files[path]
    if there.sha256 is not None:
        return there.sha256 == published.sha256
    return there.size == published.bytes and sha256_file(hub.download(path, remote.commit, cache)) == published.sha256
