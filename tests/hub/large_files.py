"""Large files: LFS in one piece and in several, and the downloads of all files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tests.hub.messages import BLOCK_BYTES, Refused, Request, Response
from tests.hub.state import TYPES, State

LFS_JSON = {"Content-Type": "application/vnd.git-lfs+json"}


def batch(state: State, request: Request, match: re.Match[str]) -> Response:
    """Say where each object is to be put; an object that is there needs nothing."""
    with state.lock:
        repository = state.readable(TYPES[match["type"] or "models"], match["id"], request.user)
        state.check_write(repository, request.user, request=True)
    wanted = request.json()
    several = state.multipart_bytes is not None and "multipart" in wanted["transfers"]
    objects = [_actions(state, request, entry["oid"], entry["size"]) for entry in wanted["objects"]]
    return Response.json({"transfer": "multipart" if several else "basic", "objects": objects}, headers=LFS_JSON)


def _actions(state: State, request: Request, oid: str, size: int) -> dict[str, object]:
    known: dict[str, object] = {"oid": oid, "size": size}
    address = f"{request.base}/lfs/{oid}"
    if state.large(oid).exists():
        return known
    if state.multipart_bytes is None or size <= state.multipart_bytes:
        return known | {"actions": {"upload": {"href": address}, "verify": {"href": f"{address}/verify"}}}
    count = -(-size // state.multipart_bytes)
    parts = {str(number): f"{address}?part={number}" for number in range(1, count + 1)}
    header = {"chunk_size": str(state.multipart_bytes), **parts}
    return known | {"actions": {"upload": {"href": f"{address}/complete", "header": header}}}


def put(state: State, request: Request, match: re.Match[str]) -> Response:
    """Take an object, or one part of it."""
    oid = match["oid"]
    if not (part := request.query("part")):
        state.store_large(oid, request.body.blocks())
        return Response.json({}, headers={"ETag": f'"{oid}"'})
    digest = hashlib.md5()
    with _part(state, oid, int(part)).open("wb") as file:
        for block in request.body.blocks():
            digest.update(block)
            file.write(block)
    return Response.json({}, headers={"ETag": f'"{digest.hexdigest()}"'})


def complete(state: State, request: Request, match: re.Match[str]) -> Response:
    """Put the parts of an object together."""
    oid = match["oid"]
    paths = [_part(state, oid, part["partNumber"]) for part in request.json()["parts"]]
    state.store_large(oid, _joined(paths))
    for path in paths:
        path.unlink()
    return Response.json({})


def _part(state: State, oid: str, number: int) -> Path:
    return state.root / f"{oid}.{number:05d}"


def _joined(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block


def verify(state: State, request: Request, match: re.Match[str]) -> Response:
    """Say whether an object arrived."""
    path = state.large(match["oid"])
    if not path.exists() or path.stat().st_size != request.json()["size"]:
        raise Refused(404, "", "the object did not arrive")
    return Response.json({})


def resolve(state: State, request: Request, match: re.Match[str]) -> Response:
    """Give a file of a revision.

    Large files are served from here: the client follows a redirect on the same host, and its answer would have to carry
    X-Repo-Commit as well.
    """
    with state.lock:
        repository = state.readable(TYPES[match["type"] or "models"], match["id"], request.user)
        state.check_files(repository, request.user)
        oid = repository.resolve(unquote(match["revision"]))
        if oid is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {match['revision']}")
        entry = repository.commits[oid].tree.get(unquote(match["path"]))
    if entry is None:
        raise Refused(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": oid})
    headers = {"X-Repo-Commit": oid, "ETag": f'"{entry.sha256 or entry.oid}"', "Accept-Ranges": "bytes"}
    headers["Content-Type"] = "application/octet-stream"
    file = None
    if entry.sha256:
        headers |= {"X-Linked-Size": str(entry.size), "X-Linked-Etag": headers["ETag"]}
        file = state.large(entry.sha256)
    return _ranged(request, Response(200, entry.content, file, 0, entry.size, headers))


def _ranged(request: Request, response: Response) -> Response:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if asked is None:
        return response
    size, start = response.length, int(asked[1])
    if start >= size:
        raise Refused(416, "", "range not satisfiable", {"Content-Range": f"bytes */{size}"})
    end = min(int(asked[2] or size - 1), size - 1)
    response.status, response.start, response.length = 206, start, end - start + 1
    response.headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return response
