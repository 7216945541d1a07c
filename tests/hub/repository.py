"""Repositories, commits, branches, tags and pull requests: the git side of the stand-in, in memory."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

LARGE_BYTES = 10 * 1024 * 1024
GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.parquet filter=lfs diff=lfs merge=lfs -text\n"
_BINARY = re.compile(r"\.(safetensors|bin|pt|arrow|parquet|npz|npy|onnx|model|zip|gz|png|jpg)$")


def now() -> str:
    """The time in the Hub's form."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def git_oid(content: bytes) -> str:
    """Git's name for a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str, size: int) -> bool:
    """True for what the Hub keeps outside git."""
    return size > LARGE_BYTES or bool(_BINARY.search(path))


@dataclass(frozen=True)
class Entry:
    """A file of a commit: its bytes, or the sha256 under which they lie in the large-file store."""

    size: int
    content: bytes = b""
    sha256: str | None = None

    @property
    def pointer(self) -> bytes:
        """What git itself stores for a large file."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def oid(self) -> str:
        """Git's name of the blob: of the content, or of the pointer."""
        return git_oid(self.pointer if self.sha256 else self.content)

    def describe(self, path: str) -> dict[str, object]:
        """The file as `tree` and `paths-info` show it."""
        lfs = {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": len(self.pointer)}} if self.sha256 else {}
        return {"type": "file", "path": path, "size": self.size, "oid": self.oid, **lfs}


Tree = dict[str, Entry]


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    oid: str
    tree: Tree
    title: str
    author: str
    parent: str | None
    date: str


@dataclass
class PullRequest:
    """A pull request; its commits lie under `refs/pr/NUM`."""

    num: int
    title: str
    description: str
    author: str
    base: str
    status: Literal["draft", "open", "closed", "merged"] = "draft"
    created: str = field(default_factory=now)

    @property
    def ref(self) -> str:
        """Where to commit to."""
        return f"refs/pr/{self.num}"


class Repository:
    """One repository; `repo_id` is `owner/name`, `kind` is model, dataset or space."""

    def __init__(self, kind: str, repo_id: str, *, private: bool) -> None:
        self.kind = kind
        self.repo_id = repo_id
        self.private = private
        self.gated = False
        self.granted: set[str] = set()
        self.created = now()
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.pulls: dict[int, PullRequest] = {}
        self.pull_heads: dict[str, str] = {}
        self.commit("main", {".gitattributes": Entry(len(GIT_ATTRIBUTES), GIT_ATTRIBUTES)}, "initial commit", self.owner)

    @property
    def owner(self) -> str:
        """The user or organisation before the slash."""
        return self.repo_id.partition("/")[0]

    @property
    def path(self) -> str:
        """The repository's place below the host."""
        return self.repo_id if self.kind == "model" else f"{self.kind}s/{self.repo_id}"

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag, pull request or commit name stands for."""
        for names in (self.branches, self.tags, self.pull_heads):
            if revision in names:
                return names[revision]
        return revision if revision in self.commits else None

    def head(self, revision: str = "main") -> Commit:
        """The commit of a revision that is known to exist."""
        oid = self.resolve(revision)
        assert oid is not None, revision
        return self.commits[oid]

    def is_open(self, ref: str) -> bool:
        """True for what can be committed to."""
        return ref in self.branches or any(p.ref == ref and p.status in ("draft", "open") for p in self.pulls.values())

    def commit(self, ref: str, tree: Tree, title: str, author: str) -> Commit:
        """Put a commit on top of a branch or of a pull request."""
        parent = self.resolve(ref)
        oid = hashlib.sha1(f"{self.kind} {self.repo_id} {len(self.commits)} {title}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, tree, title, author, parent, now())
        heads = self.pull_heads if ref.startswith("refs/pr/") else self.branches
        heads[ref] = oid
        return self.commits[oid]

    def history(self, oid: str) -> list[Commit]:
        """A commit and all before it, newest first."""
        found = [self.commits[oid]]
        while found[-1].parent:
            found.append(self.commits[found[-1].parent])
        return found

    def open_pull(self, title: str, description: str, author: str, start: str) -> PullRequest:
        """Open a pull request whose head is commit `start`."""
        pull = PullRequest(len(self.pulls) + 1, title, description, author, "refs/heads/main")
        self.pulls[pull.num] = pull
        self.pull_heads[pull.ref] = start
        return pull
