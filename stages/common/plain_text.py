"""How running text becomes documents: cut at blank lines, line ends or white space, in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Literal

from stages.common.records import Finding, Record

SHORT_FILE = 8192
"""`auto`: a text file up to this many characters is one document."""


@dataclass(frozen=True)
class TextCut:
    """Mode of cutting, target length of a document and its limit, in characters."""

    mode: Literal["auto", "file", "paragraph", "line"] = "auto"
    characters: int = 1500
    max_characters: int = 100_000


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str
    cut: bool


def text_records(name: str, stream: IO[bytes], cut: TextCut) -> Iterator[Record | Finding]:
    """Yield the documents of a plain text file; their row is the line in which they begin."""
    with io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="") as text:
        mode, head = cut.mode, ""
        if mode == "auto":
            head = text.read(SHORT_FILE + 1)
            head += text.read(1) if head.endswith("\r") else ""  # the pair CR LF is not torn
            mode = "file" if len(head) <= SHORT_FILE else "auto"
        limit = 2 * cut.characters if mode == "auto" else cut.max_characters
        for first, document, was_cut in _grouped(_lines(head, text, limit), mode, cut):
            yield Record(name, first, {"text": document}, escaped=True, cut=was_cut)


def group_units(units: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Group consecutive units (speeches, verses) into documents of at least `characters`; a short rest joins the last one."""
    waiting: list[str] = []
    current: list[str] = []
    length = 0
    for unit in units:
        current.append(unit)
        length += len(unit)
        if length >= characters:
            if waiting:
                yield waiting
            waiting, current, length = current, [], 0
    if waiting and length < characters / 2:
        yield [*waiting, *current]
        return
    for group in (waiting, current):
        if group:
            yield group


def cut_text(text: str, limit: int) -> list[str]:
    """Cut `text` into pieces of at most `limit` characters, at white space where the second half of a piece has some."""
    pieces = []
    while len(text) > limit:
        at = _break(text, limit)
        pieces.append(text[:at])
        text = text[at:]
    return [*pieces, text]


def _break(text: str, limit: int) -> int:
    for mark in ("\n", " "):
        at = text.rfind(mark, limit // 2, limit)
        if at >= 0:
            return at + 1
    return limit


def _lines(head: str, rest: IO[str], limit: int) -> Iterator[_Line]:
    """Yield the lines of `head` followed by `rest`; a line above `limit` characters comes in pieces."""
    number, carried, was_cut = 1, "", False
    start = io.StringIO(head, newline="")
    while piece := start.readline(limit) or rest.readline(limit):
        line = carried + piece
        while len(line) > limit:
            at, was_cut = _break(line, limit), True
            yield _Line(number, line[:at], cut=True)
            line = line[at:]
        carried = line
        if line.endswith(("\n", "\r")):
            yield _Line(number, line, cut=was_cut)
            number, carried, was_cut = number + 1, "", False
    if carried:
        yield _Line(number, carried, cut=was_cut)


def _closes(mode: str, cut: TextCut, line: str, length: int, blanks: int) -> bool:
    """Return whether a document of `length` characters with `blanks` blank lines ends with `line`."""
    blank = not line.strip()
    if mode in ("line", "file"):
        return mode == "line"
    if mode == "paragraph":
        return blank
    # Text with blank lines is cut there unless a paragraph is very long, text without them at line ends.
    patience = 1 if blank or not blanks else 4
    return length >= patience * cut.characters


def _grouped(lines: Iterator[_Line], mode: str, cut: TextCut) -> Iterator[tuple[int, str, bool]]:
    """Yield (first line, document, whether it was cut out of something too long)."""
    buffer: list[str] = []
    first, length, blanks, was_cut = 1, 0, 0, False
    for line in lines:
        if buffer and length + len(line.text) > cut.max_characters:
            yield first, "".join(buffer).rstrip("\r\n"), True
            buffer, length, was_cut = [], 0, True
        if not buffer:
            if not line.text.strip():
                continue
            first = line.number
        buffer.append(line.text)
        length += len(line.text)
        blanks += not line.text.strip()
        was_cut |= line.cut
        if _closes(mode, cut, line.text, length, blanks):
            yield first, "".join(buffer).rstrip("\r\n"), was_cut
            buffer, length, was_cut = [], 0, False
    if buffer:
        yield first, "".join(buffer).rstrip("\r\n"), was_cut
