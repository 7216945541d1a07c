"""What a reader gives: records, and findings about what is wrong, each with its file and row."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        place: name of the file.
        row: line, row or key in it; lines and rows count from 1.
        fields: column -> value.
        escaped: bytes that are not UTF-8 stand in the text as U+DC80 to U+DCFF (Python's `surrogateescape`).
        cut: the reader cut it out of something longer than a document may be.
    """

    place: str
    row: int | str
    fields: dict[str, Any]
    escaped: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a file or a row that is not as it should be; `kind` is one of `stages.text.corpus.gates.KINDS`."""

    kind: str
    place: str
    row: int | str
    detail: str


@dataclass(frozen=True)
class SourceFile:
    """A file to read, from disk or out of an archive; `sha256` of its content puts files into an order without paths."""

    name: str
    sha256: str
    open: Callable[[], IO[bytes]] = field(repr=False, compare=False)

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> SourceFile:
        """Wrap `content`, such as a member of a package."""
        return cls(name, hashlib.sha256(content).hexdigest(), lambda: io.BytesIO(content))

    @classmethod
    def of_path(cls, path: Path, *, name: str | None = None) -> SourceFile:
        """Wrap a file on disk; raises OSError when it cannot be read."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(name or path.name, digest, lambda: open(path, "rb"))
