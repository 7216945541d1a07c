"""Readers for formats of their own: Markdown plays, Bibles as Python source, Python modules. Nothing is imported or run."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import PurePosixPath

from pipeline.errors import DataError
from stages.common.plain_text import TextCut, group_units
from stages.common.records import Finding, Record

Reader = Callable[[str, bytes, TextCut], Iterator[Record | Finding]]

_SPEAKER = re.compile(r"\*\*(.+?)\*\*")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!>])")


def plays(name: str, content: bytes, cut: TextCut) -> Iterator[Record]:
    """Read a play in Markdown (`# play`, `## act`, `### scene`, `**SPEAKER**`, `_stage direction_`).

    A document is a run of whole speeches from one scene. A speech opens with `SPEAKER:` on a line of its own and keeps the
    line breaks of the verse; stage directions stand in square brackets.
    """
    heads = {1: PurePosixPath(name).stem.replace("-", " ").title(), 2: "", 3: ""}
    titled = False
    scene: list[tuple[int, str]] = []
    for row, block in _blocks(content.decode("utf-8", "surrogateescape")):
        heading = re.match(r"(#{1,4})\s*(.+)", block)
        if heading is None:
            scene.append((row, _speech(block)))
            continue
        yield from _scene_documents(name, scene, heads, cut)
        scene = []
        level, title = min(len(heading[1]), 3), _plain(heading[2])
        if level == 1 and titled:  # an epilogue or intermission, which the files mark like a title
            level = 3
        titled = True
        heads |= {level: title} | dict.fromkeys(range(level + 1, 4), "")
    yield from _scene_documents(name, scene, heads, cut)


def _scene_documents(name: str, scene: list[tuple[int, str]], heads: dict[int, str], cut: TextCut) -> Iterator[Record]:
    start = 0
    for group in group_units((text for _, text in scene), cut.characters):
        first, start = scene[start][0], start + len(group)
        fields = {"text": "\n\n".join(group), "play": heads[1], "act": heads[2], "scene": heads[3]}
        yield Record(name, first, fields, escaped=True)


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, block) of blocks between blank lines."""
    row = 1
    for block in re.split(r"\n[ \t]*(?=\n)", text):
        if block.strip():
            yield row + len(block) - len(block.lstrip("\n")), block.strip("\n")
        row += block.count("\n") + 1


def _speech(block: str) -> str:
    lines = [_plain(line) for line in block.split("\n")]
    speaker = _SPEAKER.match(block)
    if speaker:
        rest = _plain(block.split("\n", 1)[0][speaker.end() :])
        return "\n".join([f"{_plain(speaker[1])}:", *([rest] if rest else []), *lines[1:]])
    text = "\n".join(lines)
    if block.startswith(("_", "*")) and not text.startswith("["):
        return f"[{' '.join(lines)}]"
    return text


def _plain(line: str) -> str:
    """Remove Markdown's marks from one line."""
    return _ESCAPE.sub(r"\1", line.replace("_", "").replace("*", "")).strip()


def bible(name: str, content: bytes, cut: TextCut) -> Iterator[Record]:
    """Read a Bible of the pythonbible family: `Bible(version, text, {verse id: start}, {verse id: end}, ...)`.

    A verse id is book * 1,000,000 + chapter * 1,000 + verse. A document is a run of whole verses from one chapter.
    """
    text, starts, ends, titles = _bible_arguments(name, content)
    chapters: dict[int, list[tuple[int, str]]] = {}
    for verse, start in starts.items():
        words = text[start : ends[verse]].strip()
        if words:
            chapters.setdefault(verse // 1000, []).append((verse, words))
    for chapter, verses in chapters.items():
        title = titles[chapter // 1000 - 1] if chapter // 1000 <= len(titles) else str(chapter // 1000)
        start = 0
        for group in group_units((words for _, words in verses), cut.characters):
            first, start = verses[start][0], start + len(group)
            fields = {"text": " ".join(group), "book": title, "chapter": str(chapter % 1000), "verse": str(first % 1000)}
            yield Record(name, first, fields, escaped=True)


def _bible_arguments(name: str, content: bytes) -> tuple[str, dict[int, int], dict[int, int], list[str]]:
    try:
        tree = ast.parse(content)
        (call,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
        text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
        books = call.args[5]
        titles = [ast.literal_eval(value) for value in books.values] if isinstance(books, ast.Dict) else []
    except (SyntaxError, ValueError, IndexError) as error:
        raise DataError(f"{name}: not a Bible of the pythonbible family ({error}); check the member in the data card") from None
    return text, starts, ends, titles


def python_modules(name: str, content: bytes, cut: TextCut) -> Iterator[Record]:
    """Read Python source; a document is a run of whole functions, methods and other statements, with the
    comments above them."""
    text = content.decode("utf-8", "surrogateescape")
    lines = text.splitlines(keepends=True)
    starts = _statement_ends(content, len(lines))
    units = ["".join(lines[first:after]) for first, after in pairwise([*starts, len(lines)])]
    start = 0
    for group in group_units(units, cut.characters):
        first, start = starts[start], start + len(group)
        yield Record(name, first + 1, {"text": "".join(group).strip("\n"), "module": name}, escaped=True)


def _statement_ends(content: bytes, num_lines: int) -> list[int]:
    """Return the lines (from 0) at which a document may begin: 0, and after each top-level statement or member of a class."""
    try:
        body = ast.parse(content).body
    except (SyntaxError, ValueError):
        body = []
    members = [member for node in body if isinstance(node, ast.ClassDef) for member in node.body]
    ends = {int(node.end_lineno or 0) for node in (*body, *members)}
    return [0, *sorted(end for end in ends if 0 < end < num_lines)]


LITERATURE: dict[str, Reader] = {"plays": plays, "bible": bible, "python": python_modules}
"""Reader's name in a data card -> reader."""
