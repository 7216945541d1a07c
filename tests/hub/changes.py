"""Routes that change a repository: branches, tags, the questions before an upload, commits, pull requests."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from tests.hub.contents import Route
from tests.hub.messages import Refused, Request, Response, User
from tests.hub.repository import Commit, Entry, PullRequest, Repository, Tree, is_large, now
from tests.hub.state import TYPES, State

Writer = Callable[[State, Request, Repository, User, str], Response]


def writing(writer: Writer) -> Route:
    """Make a route of a function that changes a repository; with `create_pr=1` everybody who can read may ask for it."""

    def route(state: State, request: Request, match: re.Match[str]) -> Response:
        with state.lock:
            repository = state.readable(TYPES[match["type"]], match["id"], request.user)
            target = unquote(match.groupdict().get("revision") or match.groupdict().get("num") or "")
            asks = request.flag("create_pr") or "/discussions" in request.path or target.startswith("refs/pr/")
            user = state.check_write(repository, request.user, request=asks)
            return writer(state, request, repository, user, target)

    return route


def _known(repository: Repository, revision: str) -> Commit:
    oid = repository.resolve(revision)
    if oid is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return repository.commits[oid]


@writing
def branch(state: State, request: Request, repository: Repository, user: User, name: str) -> Response:
    """Make or delete a branch."""
    if request.method == "DELETE":
        repository.branches.pop(name, None)
        return Response.json({})
    if name in repository.branches:
        raise Refused(409, "", "Reference already exists")
    repository.branches[name] = _known(repository, request.json().get("startingPoint") or "main").oid
    return Response.json({})


@writing
def tag(state: State, request: Request, repository: Repository, user: User, revision: str) -> Response:
    """Name a revision, or (DELETE) forget a name."""
    if request.method == "DELETE":
        repository.tags.pop(revision, None)
        return Response.json({})
    name = request.json()["tag"]
    if name in repository.tags:
        raise Refused(409, "", "Tag reference exists already")
    repository.tags[name] = _known(repository, revision).oid
    return Response.json({})


@writing
def preupload(state: State, request: Request, repository: Repository, user: User, revision: str) -> Response:
    """Say how each file is to be uploaded, and what is there under its name."""
    there = _known(repository, revision).tree
    files = []
    for file in request.json()["files"]:
        entry = there.get(file["path"])
        mode = "lfs" if is_large(file["path"], file["size"]) else "regular"
        oid = (entry.sha256 or entry.oid) if entry else None
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Response.json({"files": files})


@writing
def commit(state: State, request: Request, repository: Repository, user: User, revision: str) -> Response:
    """Add and delete files; with `create_pr=1` in a new pull request."""
    head = _known(repository, revision)
    if not repository.is_open(revision):
        raise Refused(400, "", "A commit needs a branch or an open pull request")
    lines = [json.loads(line) for line in request.body.read().splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    parent = header.get("parentCommit")
    if parent and not head.oid.startswith(parent):
        raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
    tree = dict(head.tree)
    for line in lines:
        _apply(state, tree, line["key"], line["value"])
    answer: dict[str, Any] = {"success": True, "hookOutput": ""}
    if request.flag("create_pr"):
        pull = repository.open_pull(header["summary"], header.get("description", ""), user.name, head.oid)
        revision, answer["pullRequestUrl"] = pull.ref, f"{request.base}/{repository.path}/discussions/{pull.num}"
    made = repository.commit(revision, tree, header["summary"], user.name)
    address = f"{request.base}/{repository.path}/commit/{made.oid}"
    return Response.json(answer | {"commitOid": made.oid, "commitUrl": address})


def _apply(state: State, tree: Tree, key: str, value: dict[str, Any]) -> None:
    path = value.get("path", "")
    if key == "file":
        content = base64.b64decode(value["content"])
        tree[path] = Entry(len(content), content)
    elif key == "lfsFile":
        stored = state.large(value["oid"])
        if not stored.exists():
            raise Refused(400, "", f"LFS object {value['oid']} was not uploaded")
        tree[path] = Entry(stored.stat().st_size, sha256=value["oid"])
    elif key == "deletedFile":
        if tree.pop(path, None) is None:
            raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
    elif key == "deletedFolder":
        for name in [name for name in tree if name.startswith(path.rstrip("/") + "/")]:
            del tree[name]


def _shown(repository: Repository, pull: PullRequest) -> dict[str, Any]:
    return {
        "num": pull.num,
        "title": pull.title,
        "author": {"name": pull.author},
        "status": pull.status,
        "createdAt": pull.created,
        "isPullRequest": True,
        "repo": {"name": repository.repo_id, "type": repository.kind},
    }


@writing
def open_discussion(state: State, request: Request, repository: Repository, user: User, _: str) -> Response:
    """Open a pull request (a draft) on main; plain discussions are not kept."""
    wanted = request.json()
    if not wanted["pullRequest"]:
        raise Refused(400, "", "only pull requests are kept here")
    pull = repository.open_pull(wanted["title"], wanted["description"], user.name, repository.head().oid)
    return Response.json({"num": pull.num})


def discussions(state: State, request: Request, match: re.Match[str]) -> Response:
    """List pull requests, by author and status (open means open or draft)."""
    with state.lock:
        repository = state.readable(TYPES[match["type"]], match["id"], request.user)
        author, status = request.query("author"), request.query("status")
        wanted = {"open": ("open", "draft"), "closed": ("closed", "merged")}.get(status, ("open", "draft", "closed", "merged"))
        found = [p for p in repository.pulls.values() if author in ("", p.author) and p.status in wanted]
        shown = [_shown(repository, pull) for pull in found]
    return Response.json({"discussions": shown, "count": len(shown), "start": 0})


def discussion(state: State, request: Request, match: re.Match[str]) -> Response:
    """Describe one pull request."""
    with state.lock:
        repository = state.readable(TYPES[match["type"]], match["id"], request.user)
        pull = _pull(repository, match["num"])
        event = {
            "id": "0",
            "type": "comment",
            "createdAt": pull.created,
            "author": {"name": pull.author},
            "data": {"edited": False, "hidden": False, "latest": {"raw": pull.description}},
        }
        rest = {"events": [event], "changes": {"base": pull.base}, "filesWithConflicts": [], "diff": ""}
        return Response.json(_shown(repository, pull) | rest)


def _pull(repository: Repository, num: str) -> PullRequest:
    if int(num) not in repository.pulls:
        raise Refused(404, "", f"no discussion {num}")
    return repository.pulls[int(num)]


@writing
def set_status(state: State, request: Request, repository: Repository, user: User, num: str) -> Response:
    """Open or close a pull request."""
    pull = _pull(repository, num)
    pull.status = request.json()["status"]
    author = {"name": user.name}
    event = {"id": "1", "type": "status-change", "createdAt": now(), "author": author, "data": {"status": pull.status}}
    return Response.json({"newStatus": event})


@writing
def merge(state: State, request: Request, repository: Repository, user: User, num: str) -> Response:
    """Merge a pull request into main, for those who may write."""
    state.check_write(repository, request.user)
    pull = _pull(repository, num)
    tree = repository.head("main").tree | repository.head(pull.ref).tree
    repository.commit("main", tree, f"{pull.title} (#{num})", user.name)
    pull.status = "merged"
    return Response.json({})
