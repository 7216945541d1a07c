"""Routes outside repositories: who am I, create, delete, list."""

from __future__ import annotations

import re

from tests.hub.contents import information
from tests.hub.messages import Refused, Request, Response
from tests.hub.state import TYPES, State

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")


def whoami(state: State, request: Request, match: re.Match[str]) -> Response:
    """Describe the user whom the token stands for."""
    user = request.user
    if user is None:
        raise Refused(401, "", "Invalid credentials in Authorization header")
    return Response.json(
        {
            "type": "user",
            "id": "0" * 24,
            "name": user.name,
            "fullname": user.name,
            "orgs": [{"type": "org", "name": name, "roleInOrg": "write"} for name in user.orgs],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}},
        }
    )


def harnesses(state: State, request: Request, match: re.Match[str]) -> Response:
    """What the client asks for when it runs in an agent's shell."""
    return Response.json({"standardEnvVars": [], "harnesses": {}})


def validate_yaml(state: State, request: Request, match: re.Match[str]) -> Response:
    """Look at the front matter of a card: a line of it must be a key, a list item or a continuation."""
    front = re.match(r"---\n(.*?)\n---", request.json()["content"], re.DOTALL)
    wrong = [line for line in (front[1].splitlines() if front else []) if not re.match(r"\s*($|#|- |[\w-]+:|\s)", line)]
    if wrong:
        return Response.json({"errors": [{"message": f"bad line {wrong[0]!r}"}], "warnings": []}, status=400)
    return Response.json({"errors": [], "warnings": []})


def create(state: State, request: Request, match: re.Match[str]) -> Response:
    """Create a repository; one that exists is answered with 409 and its address."""
    user, wanted = request.user, request.json()
    if user is None:
        raise Refused(401, "", "Invalid username or password.")
    owner, name, kind = wanted.get("organization") or user.name, wanted["name"], wanted.get("type") or "model"
    if user.role != "write" or owner not in user.owners:
        raise Refused(403, "", f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
    if not _NAME.fullmatch(name):
        raise Refused(400, "", f"Invalid repository name {name!r}")
    with state.lock:
        found = state.repositories.get((kind, f"{owner}/{name}"))
        if found is not None:
            answer = {"error": f"You already created this {kind} repo", "url": f"{request.base}/{found.path}"}
            return Response.json(answer, status=409)
        made = state.create(kind, f"{owner}/{name}", private=wanted.get("visibility") == "private")
    return Response.json({"url": f"{request.base}/{made.path}", "name": made.repo_id})


def delete(state: State, request: Request, match: re.Match[str]) -> Response:
    """Delete a repository of one's own."""
    wanted = request.json()
    with state.lock:
        owner = wanted.get("organization") or (request.user.name if request.user else "")
        found = state.readable(wanted.get("type") or "model", f"{owner}/{wanted['name']}", request.user)
        state.check_write(found, request.user)
        del state.repositories[found.kind, found.repo_id]
    return Response.json({})


def listing(state: State, request: Request, match: re.Match[str]) -> Response:
    """List the repositories of a type that the user may see, by owner and by part of the name."""
    kind, author, search = TYPES[match["type"]], request.query("author"), request.query("search")
    owners = request.user.owners if request.user else ()
    with state.lock:
        shown = [
            information(r, r.head())
            for r in state.repositories.values()
            if r.kind == kind and (not r.private or r.owner in owners) and author in ("", r.owner) and search in r.repo_id
        ]
    return Response.json(shown)
