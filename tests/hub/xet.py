"""The write half of a Xet store: xorbs come in, a shard says which pieces of them make up which file.

Needs `lz4`. Downloads go over `/resolve`, because no answer ever names a Xet hash.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator

from tests.hub.messages import Refused, Request, Response
from tests.hub.state import TYPES, State

RECORD_BYTES = 48
HASH_BYTES = 32
LIFETIME_SECONDS = 3600
_WITH_VERIFICATION = 1 << 31
_WITH_METADATA = 1 << 30


def write_token(state: State, request: Request, match: re.Match[str]) -> Response:
    """Say where the store is."""
    with state.lock:
        repository = state.readable(TYPES[match["type"]], match["id"], request.user)
        state.check_write(repository, request.user, request=request.flag("create_pr"))
    if not state.xet:
        raise Refused(404, "", "this server has no Xet store")
    address, expires = f"{request.base}/cas", int(time.time()) + LIFETIME_SECONDS
    headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
    return Response.json({"casUrl": address, "accessToken": "xet", "exp": expires}, headers=headers)


def put_xorb(state: State, request: Request, match: re.Match[str]) -> Response:
    """Keep a xorb."""
    state.xorbs[match["hash"]] = request.body.read()
    return Response.json({"was_inserted": True})


def put_shard(state: State, request: Request, match: re.Match[str]) -> Response:
    """Put the files together that a shard describes."""
    for sha256, content in _files(state, request.body.read()):
        state.store_large(sha256, [content])
    return Response.json({"result": 1})


def _hex(raw: bytes) -> str:
    """A Xet hash as text: four little-endian numbers of 64 bits."""
    return "".join(f"{int.from_bytes(raw[i : i + 8], 'little'):016x}" for i in range(0, HASH_BYTES, 8))


def _chunks(xorb: bytes) -> list[bytes]:
    """The chunks of a xorb: each has a header of 8 bytes (version, packed size, scheme, size)."""
    import lz4.frame  # type: ignore[import-untyped]

    found, at = [], 0
    while at + 8 <= len(xorb) and xorb[at] == 0:  # a footer begins with another version
        packed, scheme = int.from_bytes(xorb[at + 1 : at + 4], "little"), xorb[at + 4]
        content = xorb[at + 8 : at + 8 + packed]
        at += 8 + packed
        if scheme:
            content = lz4.frame.decompress(content)
        found.append(_ungrouped(content) if scheme == 2 else content)
    return found


def _ungrouped(content: bytes) -> bytes:
    """Undo the grouping of every fourth byte."""
    whole, rest = divmod(len(content), 4)
    out, at = bytearray(len(content)), 0
    for group in range(4):
        count = whole + (group < rest)
        out[group::4] = content[at : at + count]
        at += count
    return bytes(out)


def _files(state: State, shard: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield sha256 and content of each file: a record for the file, one for each piece, then what the flags announce."""
    at = RECORD_BYTES
    while shard[at : at + HASH_BYTES] != b"\xff" * HASH_BYTES and at + RECORD_BYTES <= len(shard):
        flags, count = (int.from_bytes(shard[at + o : at + o + 4], "little") for o in (32, 36))
        at += RECORD_BYTES
        pieces: list[bytes] = []
        for _ in range(count):
            first, last = (int.from_bytes(shard[at + o : at + o + 4], "little") for o in (40, 44))
            pieces += _chunks(state.xorbs[_hex(shard[at : at + HASH_BYTES])])[first:last]
            at += RECORD_BYTES
        at += RECORD_BYTES * count * bool(flags & _WITH_VERIFICATION) + RECORD_BYTES * bool(flags & _WITH_METADATA)
        content = b"".join(pieces)
        yield hashlib.sha256(content).hexdigest(), content
