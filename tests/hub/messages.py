"""A request and a response of the stand-in; bodies are streams, so that large files never lie in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

BLOCK_BYTES = 1 << 20


class Refused(Exception):
    """The request is answered with an error, in the Hub's form."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        named = {"X-Error-Code": code, "X-Error-Message": message} | (headers or {})
        self.response = Response.json({"error": message}, status=status, headers=named)


class Cut(Exception):
    """The connection ends here, without an answer."""


@dataclass(frozen=True)
class User:
    """Who a token stands for; `role` is read or write."""

    name: str
    role: str
    orgs: tuple[str, ...] = ()

    @property
    def owners(self) -> tuple[str, ...]:
        """The names under which this user may write."""
        return (self.name, *self.orgs)


@dataclass
class Body:
    """The body of a request as a stream, plain or chunked; ends the connection after `limit` bytes when one is set."""

    source: BinaryIO
    length: int
    chunked: bool
    limit: int | None = None

    def blocks(self) -> Iterator[bytes]:
        """Yield the body piece by piece."""
        done = 0
        for block in self._chunks() if self.chunked else self._plain():
            done += len(block)
            if self.limit is not None and done > self.limit:
                raise Cut
            yield block

    def _plain(self) -> Iterator[bytes]:
        while self.length > 0:
            block = self.source.read(min(self.length, self._step()))
            if not block:
                raise Cut
            self.length -= len(block)
            yield block

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.source.readline().strip() or b"0", 16):
            yield self.source.read(size)
            self.source.readline()
        self.source.readline()
        self.chunked = False

    def _step(self) -> int:
        return BLOCK_BYTES if self.limit is None else self.limit + 1

    def read(self) -> bytes:
        """The rest of the body."""
        return b"".join(self.blocks())


@dataclass
class Request:
    """One request; `path` is still quoted."""

    method: str
    target: str
    headers: Any
    body: Body
    host: str
    user: User | None = None

    @property
    def path(self) -> str:
        """The path without the query."""
        return urlsplit(self.target).path

    @property
    def base(self) -> str:
        """The address of the server as the client knows it."""
        return f"http://{self.host}"

    def query(self, key: str, default: str = "") -> str:
        """One value of the query."""
        return parse_qs(urlsplit(self.target).query).get(key, [default])[0]

    def flag(self, key: str) -> bool:
        """True when the query sets `key`."""
        return self.query(key).lower() in ("1", "true")

    def json(self) -> dict[str, Any]:
        """The body as an object."""
        found: dict[str, Any] = json.loads(self.body.read() or b"{}")
        return found


@dataclass
class Response:
    """An answer whose body is bytes, or a piece of a file."""

    status: int = 200
    content: bytes = b""
    file: Path | None = None
    start: int = 0
    length: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        """An answer with `value` as JSON."""
        content = json.dumps(value).encode()
        return cls(status, content, length=len(content), headers={"Content-Type": "application/json"} | (headers or {}))

    def blocks(self) -> Iterator[bytes]:
        """Yield the body piece by piece."""
        if self.file is None:
            yield self.content[self.start : self.start + self.length]
            return
        with self.file.open("rb") as file:
            file.seek(self.start)
            left = self.length
            while left and (block := file.read(min(left, BLOCK_BYTES))):
                left -= len(block)
                yield block
