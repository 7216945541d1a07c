"""Documents sorted by content hash on disk, exact copies gone, in memory that does not grow with the corpus.

A bucket sort: pass one appends each document to one of 256 files by the first byte of its hash, pass two sorts one file at
a time. The order depends on the documents alone, so neither the order of files nor of rows can change a corpus.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_HASH_DIGITS = 64
_BUFFER_BYTES = 1 << 16

Row = dict[str, str | None]


def content_hash(text: str) -> str:
    """Return the sha256 of the text in UTF-8, in hex: the identity of a document."""
    return hashlib.sha256(text.encode()).hexdigest()


def split_of(digest: str, *, validation: float, test: float) -> str:
    """Return the split of the document with this hash.

    The first 64 bits of the hash, read as a number in [0, 1), decide: below `test` it is test, in the next part of length
    `validation` it is validation, else train. It depends on nothing else, so documents that come later move none.
    """
    place = int(digest[:16], 16) / 2**64
    if place < test:
        return "test"
    return "validation" if place < test + validation else "train"


class Spool:
    """Takes documents in any order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_documents = 0
        self._buckets: dict[str, IO[bytes]] = {}

    def add(self, row: Row) -> None:
        """Take one document; row["text"] is its text."""
        text = row["text"]
        assert text is not None
        digest = content_hash(text)
        bucket = digest[:2]
        if bucket not in self._buckets:
            self._buckets[bucket] = open(self.folder / bucket, "wb", buffering=_BUFFER_BYTES)  # noqa: SIM115 (`sort` closes it)
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        self._buckets[bucket].write(f"{digest}{line}\n".encode())
        self.num_documents += 1

    def sort(self) -> SortedDocuments:
        """Sort by hash and remove exact copies; of copies with unlike columns the smallest line stays."""
        offsets = array("q", [0])
        path = self.folder / "sorted"
        with open(path, "wb", buffering=1 << 20) as out:
            for bucket in sorted(self._buckets):
                self._buckets[bucket].close()
                offsets.extend(_sort_bucket(self.folder / bucket, out, offsets[-1]))
        return SortedDocuments(path, offsets, self.num_documents - (len(offsets) - 1))


def _sort_bucket(bucket: Path, out: IO[bytes], start: int) -> Iterator[int]:
    """Append one bucket to `out` and yield the offset after each document."""
    lines = bucket.read_bytes().split(b"\n")[:-1]
    bucket.unlink()
    lines.sort()
    last = b""
    for line in lines:
        if line[:_HASH_DIGITS] == last:
            continue
        last = line[:_HASH_DIGITS]
        out.write(line + b"\n")
        start += len(line) + 1
        yield start


@dataclass
class SortedDocuments:
    """Distinct documents in the order of their hashes.

    Attributes:
        path: one line per document: hash, then JSON.
        offsets: where each line starts, and the end; 8 bytes of memory per document.
        num_copies: how many exact copies were removed.
    """

    path: Path
    offsets: array[int]
    num_copies: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Yield (hash, row)."""
        with open(self.path, "rb", buffering=1 << 20) as file:
            for line in file:
                yield line[:_HASH_DIGITS].decode(), json.loads(line[_HASH_DIGITS:])

    def text(self, rank: int) -> str:
        """Return the text at position `rank`, by random access."""
        with open(self.path, "rb") as file:
            file.seek(self.offsets[rank] + _HASH_DIGITS)
            return str(json.loads(file.readline())["text"])
