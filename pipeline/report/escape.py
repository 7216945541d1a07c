"""The one place where text out of data becomes HTML or Markdown.

Everything that a page shows goes through here: `element` escapes each child that is not `Html` already, so forgetting to
escape shows markup as text and never lets text become markup.
"""

from __future__ import annotations

import html
import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls except tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, embeddings, overrides and isolates of text direction
    "\u2028\u2029\ufeff\ufdd0-\ufdef\ufff9-\uffff\ud800-\udfff]"  # separators, BOM, noncharacters, lone surrogates
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#!|~$])")
_BLOCK_START = re.compile(r"^(\s*)([-+=:]|\d+(?=[.)](?:\s|$)))")
VOID = frozenset({"img", "meta", "br", "col"})


class Html(str):
    """Markup that is safe to place in a page."""

    __slots__ = ()


def visible(text: str) -> str:
    """Return `text` with controls and direction marks shown by their names: nothing hides, nothing turns around."""
    return _UNSEEN.sub(_name, text.replace("\r\n", "\n"))


def _name(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨U+{code:04X}⟩"


def to_html(text: str) -> Html:
    """Return `text` as HTML that shows exactly it."""
    return text if isinstance(text, Html) else Html(html.escape(visible(text), quote=True))


def element(name: str, /, *children: str, **attributes: str | int | None) -> Html:
    """Return `<name ...>children</name>`; children and attribute values that are not `Html` are escaped.

    An attribute of value None is left out; `class_` and `for_` lose their underscore, others turn it into a hyphen.
    """
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    opening = "".join(f' {key}="{to_html(str(value))}"' for key, value in pairs)
    if name in VOID:
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{''.join(to_html(child) for child in children)}</{name}>")


def to_markdown(text: str) -> str:
    """Return `text` as one line of Markdown that shows exactly it (blanks and line breaks become one blank each).

    What opens HTML is written as an entity, what opens Markdown with a backslash, also what would open a block at the
    start of a line, and what GitHub would turn into a link.
    """
    line = " ".join(visible(text).split())
    line = _MARKDOWN.sub(r"\\\1", line.replace("&", "&amp;")).replace("<", "&lt;").replace(">", "&gt;")
    line = line.replace("://", "\\://").replace("www.", "www\\.")
    start = _BLOCK_START.match(line)
    if start is None:
        return line
    opener, rest = start.group(2), line[start.end() :]
    return f"{opener}\\{rest}" if opener.isdigit() else f"\\{opener}{rest}"


def fenced(text: str, language: str = "") -> str:
    """Return `text` as a fenced block whose fence is longer than any run of backticks in it."""
    body = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"
