"""Routes that read a repository: information, trees, paths, refs, history."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.hub.messages import Refused, Request, Response
from tests.hub.repository import Commit, Repository
from tests.hub.state import TYPES, State

Route = Callable[[State, Request, "re.Match[str]"], Response]
Reader = Callable[[State, Request, Repository, Commit, str], Response]


def reading(reader: Reader) -> Route:
    """Make a route of a function that reads one revision (default: main) of a repository that the user may see."""

    def route(state: State, request: Request, match: re.Match[str]) -> Response:
        groups = match.groupdict()
        with state.lock:
            repository = state.readable(TYPES[match["type"]], match["id"], request.user)
            revision = unquote(groups.get("revision") or "main")
            oid = repository.resolve(revision)
            if oid is None:
                raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return reader(state, request, repository, repository.commits[oid], unquote(groups.get("path") or ""))

    return route


def information(repository: Repository, commit: Commit) -> dict[str, Any]:
    """What the Hub tells about a repository at one commit."""
    return {
        "_id": "0" * 24,
        "id": repository.repo_id,
        "modelId": repository.repo_id,
        "author": repository.owner,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": repository.created,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
    }


@reading
def info(state: State, request: Request, repository: Repository, commit: Commit, path: str) -> Response:
    """Describe the repository."""
    return Response.json(information(repository, commit))


@reading
def tree(state: State, request: Request, repository: Repository, commit: Commit, path: str) -> Response:
    """List a folder, page by page; the next page is named in the header `Link`."""
    prefix = f"{path}/" if path else ""
    files = {name: entry for name, entry in commit.tree.items() if name.startswith(prefix)}
    if path and not files:
        raise Refused(404, "EntryNotFound", f"{path} does not exist on {commit.oid}")
    inner = [name.removeprefix(prefix) for name in files]
    folders = {part for name in inner for part in _parents(name)}
    found = [entry.describe(name) for name, entry in files.items()]
    found += [
        {"type": "directory", "path": prefix + name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
        for name in folders
    ]
    if not request.flag("recursive"):
        found = [entry for entry in found if "/" not in str(entry["path"]).removeprefix(prefix)]
    found.sort(key=lambda entry: str(entry["path"]))
    start = int(request.query("cursor", "0"))
    end = start + state.page_size
    headers = {}
    if end < len(found):
        address = f"{request.base}{request.path}?recursive={request.query('recursive')}&cursor={end}"
        headers["Link"] = f'<{address}>; rel="next"'
    return Response.json(found[start:end], headers=headers)


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


@reading
def paths_info(state: State, request: Request, repository: Repository, commit: Commit, path: str) -> Response:
    """Describe the files of a list of paths (JSON or a form)."""
    raw = request.body.read()
    if "json" in request.headers.get("Content-Type", ""):
        paths = json.loads(raw)["paths"]
    else:
        paths = parse_qs(raw.decode()).get("paths", [])
    return Response.json([commit.tree[name].describe(name) for name in paths if name in commit.tree])


@reading
def history(state: State, request: Request, repository: Repository, commit: Commit, path: str) -> Response:
    """List a commit and those before it."""
    return Response.json(
        [
            {"id": c.oid, "title": c.title, "message": "", "authors": [{"user": c.author}], "date": c.date}
            for c in repository.history(commit.oid)
        ]
    )


@reading
def refs(state: State, request: Request, repository: Repository, commit: Commit, path: str) -> Response:
    """List branches, tags and pull requests."""

    def shown(heads: dict[str, str], prefix: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in heads.items()]

    return Response.json(
        {
            "branches": shown(repository.branches, "refs/heads/"),
            "tags": shown(repository.tags, "refs/tags/"),
            "pullRequests": shown(repository.pull_heads, ""),
            "converts": [],
        }
    )


def revision_pattern(verb: str) -> str:
    """The pattern of `/api/TYPE/ID/VERB/REVISION`, where the revision is one quoted part."""
    return rf"/api/(?P<type>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)/{verb}/(?P<revision>[^/]+)"
