"""Every record passes these gates: what is wrong is counted and named, and refused, repaired or dropped as the policy says.

Repairs that lose nothing of meaning (byte order mark, carriage returns, Unicode form) are made always; they are counted too.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import CardError, DataError, nearest
from stages.common.plain_text import cut_text
from stages.common.records import Finding, Record

KINDS: dict[str, str] = {
    "invalid_utf8": "bytes that are not UTF-8",
    "surrogate": "half a surrogate pair",
    "nul": "the character NUL",
    "missing_text": "no text in the text column",
    "wrong_type": "text that is not a string",
    "bad_record": "a record that cannot be parsed",
    "byte_order_mark": "a byte order mark at the start of a file",
    "carriage_return": "line ends with carriage returns",
    "unicode_form": "letters spelled in another Unicode form than NFC",
    "long_document": "a document above max_characters",
    "short_document": "a document below min_characters",
    "empty_document": "a document of white space only",
    "gzip_name": "gzip content under another name",
    "duplicate_file": "a file with the content of another",
}
"""Kind of finding -> what it is, for people."""

ALWAYS: dict[str, str] = {
    "byte_order_mark": "repair",
    "carriage_return": "repair",
    "unicode_form": "repair",
    "long_document": "repair",
    "short_document": "drop",
    "empty_document": "drop",
    "gzip_name": "repair",
    "duplicate_file": "drop",
}
"""Findings whose treatment is not a choice."""

EXAMPLES = 5
MOST_REFUSED = 1000
"""Refused records after which reading stops: the message is clear by then."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Policy:
    """How records become documents. `actions`: kind -> refuse, repair or drop."""

    actions: Mapping[str, str]
    text_column: str = "text"
    template: str | None = None
    columns: tuple[str, ...] = ()
    nfc: bool = True
    min_characters: int = 1
    max_characters: int = 100_000

    @cached_property
    def compiled(self) -> jinja2.Template | None:
        """The template; it can read columns and nothing else."""
        if self.template is None:
            return None
        environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        try:
            return environment.from_string(self.template)
        except jinja2.TemplateSyntaxError as error:
            raise CardError(f"template, line {error.lineno}: {error.message}; correct 'groundup.template' in the card") from None


Row = dict[str, str | None]


@dataclass
class Gates:
    """Takes records in, gives documents out, remembers what was found."""

    policy: Policy
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def documents(self, items: Iterator[Record | Finding]) -> Iterator[Row]:
        """Yield rows {"text": ..., further columns}; call `refuse` after the last."""
        for item in items:
            if isinstance(item, Finding):
                self._found(item.kind, item.place, item.row, item.detail)
            else:
                yield from self._admit(item)

    def _admit(self, record: Record) -> Iterator[Row]:
        text = self._text(record)
        text = None if text is None else self._clean(record, text)
        if text is None:
            return
        columns = {name: _column(record.fields.get(name)) for name in self.policy.columns}
        pieces = cut_text(text, self.policy.max_characters)
        if len(pieces) > 1 or record.cut:
            self._found("long_document", record.place, record.row, "cut at white space")
        for piece in pieces:
            if not piece.strip():
                self._found("empty_document", record.place, record.row, "nothing but white space")
            elif len(piece) < self.policy.min_characters:
                self._found("short_document", record.place, record.row, f"{len(piece)} characters: {piece[:40]!r}")
            else:
                yield {"text": piece, **columns}

    def _text(self, record: Record) -> str | None:
        """Take the text out of a record; None when it is dropped."""
        where = (record.place, record.row)
        if self.policy.compiled is not None:
            try:
                return self.policy.compiled.render(record.fields)
            except (jinja2.TemplateError, TypeError) as error:
                self._found("missing_text", *where, f"the template fails: {error}")
                return None
        column = self.policy.text_column
        if column not in record.fields:
            known = [str(name) for name in record.fields]
            self._found("missing_text", *where, f"no column '{column}' ({nearest(column, known)})")
            return None
        value = record.fields[column]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            self._found("missing_text", *where, f"column '{column}' is {'null' if value is None else 'NaN'}")
            return None
        if isinstance(value, str):
            return value
        action = self._found("wrong_type", *where, f"column '{column}' is {type(value).__name__}: {str(value)[:40]}")
        return str(value) if action == "repair" and isinstance(value, int | float) else None

    def _clean(self, record: Record, text: str) -> str | None:
        """Repair the characters of a text; None when it is dropped."""
        if not text.isascii():
            for kind, pattern in (("invalid_utf8", _ESCAPED_BYTE), ("surrogate", _SURROGATE)):
                bad = pattern.search(text) if record.escaped or kind == "surrogate" else None
                if bad is None:
                    continue
                if self._found(kind, record.place, record.row, _around(text, bad.start())) != "repair":
                    return None
                text = pattern.sub("\ufffd", text)
            if self.policy.nfc and not unicodedata.is_normalized("NFC", text):
                self._found("unicode_form", record.place, record.row, "normalised to NFC")
                text = unicodedata.normalize("NFC", text)
        if "\0" in text:
            if self._found("nul", record.place, record.row, _around(text, text.index("\0"))) != "repair":
                return None
            text = text.replace("\0", "")
        if "\r" in text:
            self._found("carriage_return", record.place, record.row, "made plain line feeds")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text

    def _found(self, kind: str, place: str, row: int | str, detail: str) -> str:
        """Count a finding, keep the first few; return what is to be done: refuse, repair or drop."""
        action = ALWAYS.get(kind) or self.policy.actions[kind]
        self.counts[kind, action] += 1
        known = self.examples.setdefault(kind, [])
        if len(known) < EXAMPLES:
            known.append(f"{place}{f', row {row}' if row else ''}: {detail}")
        if action == "refuse" and sum(n for (_, what), n in self.counts.items() if what == "refuse") >= MOST_REFUSED:
            self.refuse()
        return action

    def refuse(self) -> None:
        """Raise DataError with counts and examples, if anything was found that the policy refuses."""
        refused = {kind: n for (kind, action), n in self.counts.items() if action == "refuse"}
        if not refused:
            return
        lines = []
        for kind, count in refused.items():
            choices = "drop" if kind in ("missing_text", "bad_record") else "repair or drop"
            lines.append(f"{count:,} x {KINDS[kind]} (to let them pass: on_{kind}={choices}):")
            lines += [f"    {example}" for example in self.examples[kind]]
        raise DataError("the data has records that are refused:\n  " + "\n  ".join(lines))

    def table(self) -> list[dict[str, Any]]:
        """Return all findings for statistics and report."""
        rows = sorted(self.counts.items())
        return [
            {"kind": kind, "action": action, "count": count, "examples": self.examples[kind]} for (kind, action), count in rows
        ]


def _around(text: str, position: int) -> str:
    return f"at character {position}: {text[max(0, position - 20) : position + 20]!r}"


def _column(value: Any) -> str | None:
    """Further columns are text or null; characters that no file can hold are replaced."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return _SURROGATE.sub("\ufffd", text).replace("\0", "")
