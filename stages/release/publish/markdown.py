"""Text of others inside Markdown: shown as it is, never read as markup, HTML or a table's border."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_MARKUP = re.compile(r"([\\`*_\[\]|~$]|^[#+=-])")
_BARE_ADDRESS = re.compile(r"(?i)\b(https?|ftp|www)([:.])")


def plain(text: str) -> str:
    """Return `text` as one line of Markdown that shows exactly it: no emphasis, link, image, HTML or heading."""
    line = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)
    line = _MARKUP.sub(r"\\\1", " ".join(line.split()))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    return _BARE_ADDRESS.sub(lambda match: f"{match[1]}&#{ord(match[2])};", line)  # else the Hub makes a link of it


def code(text: str) -> str:
    """Return `text` as a span of code on one line, also inside a table."""
    line = " ".join("".join(" " if unicodedata.category(c).startswith("C") else c for c in text).split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    inner = f" {line} " if line.startswith("`") or line.endswith("`") else line
    return f"{fence}{inner}{fence}".replace("|", "\\|") if line else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are Markdown already (from `plain` or `code`)."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def block(content: str, language: str = "") -> str:
    """Return a fenced block of code, with a fence longer than any inside."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content.rstrip()}\n{fence}"
