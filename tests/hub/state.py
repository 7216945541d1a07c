"""What the stand-in knows: accounts, repositories, large files; and who may read or write what."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path

from tests.hub.messages import Cut, Refused, User
from tests.hub.repository import Repository

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}


class State:
    """Everything that is stored; `lock` guards the git side, large files are written once and renamed into place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.xorbs: dict[str, bytes] = {}
        self.page_size = 1000
        self.multipart_bytes: int | None = None
        self.xet = False

    def add_user(self, token: str, name: str, *, role: str = "write", orgs: tuple[str, ...] = ()) -> None:
        """Let `token` stand for user `name` with `role` (read or write)."""
        self.users[token] = User(name, role, orgs)

    def create(self, kind: str, repo_id: str, *, private: bool = True) -> Repository:
        """Make a repository with its first commit."""
        made = self.repositories[kind, repo_id] = Repository(kind, repo_id, private=private)
        return made

    def readable(self, kind: str, repo_id: str, user: User | None) -> Repository:
        """The repository, when `user` may see it."""
        found = self.repositories.get((kind, repo_id))
        if found is None or (found.private and (user is None or found.owner not in user.owners)):
            status, message = (404, "Repository not found") if user else (401, "Invalid username or password.")
            raise Refused(status, "RepoNotFound", message)
        return found

    def check_files(self, repository: Repository, user: User | None) -> None:
        """Refuse the files of a gated repository to those who were not let in."""
        name = user.name if user else ""
        inside = user is not None and (repository.owner in user.owners or name in repository.granted)
        if repository.gated and not inside:
            reason = "is restricted, ask for access" if user else "is restricted, log in first"
            raise Refused(403 if user else 401, "GatedRepo", f"Access to model {repository.repo_id} {reason}.")

    def check_write(self, repository: Repository, user: User | None, *, request: bool = False) -> User:
        """Refuse writing; a pull request (`request`) may come from anybody who can read."""
        if user is None:
            raise Refused(401, "", "Invalid username or password.")
        if user.role != "write":
            raise Refused(403, "", "Forbidden: you must use a write token to upload to a repository.")
        if not request and repository.owner not in user.owners:
            raise Refused(403, "", "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        return user

    def large(self, sha256: str) -> Path:
        """Where a large file lies."""
        return self.root / sha256

    def store_large(self, sha256: str, blocks: Iterable[bytes]) -> None:
        """Write a large file and check it; a file that was cut off leaves nothing behind."""
        temporary = self.root / f"{sha256}.{threading.get_ident()}.part"
        digest = hashlib.sha256()
        try:
            with temporary.open("wb") as file:
                for block in blocks:
                    digest.update(block)
                    file.write(block)
        except Cut:
            temporary.unlink()
            raise
        if digest.hexdigest() != sha256:
            temporary.unlink()
            raise Refused(400, "", "the content does not have the sha256 that was announced")
        temporary.rename(self.large(sha256))
