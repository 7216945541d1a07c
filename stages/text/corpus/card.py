"""The `groundup:` block of a data card for text: where the data comes from, and how records become documents."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.common.packages import Package
from stages.common.readers import READERS

_STRICT = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Hub(BaseModel):
    """A dataset on the Hugging Face Hub, streamed."""

    model_config = _STRICT
    repo: str
    """`owner/name`."""
    revision: str = "main"
    """Branch, tag or commit; the engine resolves it to a commit, which enters the fingerprint."""
    config: str | None = None
    """Name of its configuration (subset)."""
    split: str = "train"
    """Which of its splits to read; ours are made by content hash."""


class Files(BaseModel):
    """Files on this machine."""

    model_config = _STRICT
    files: list[str]
    """Files, folders or glob patterns."""


class Stdlib(BaseModel):
    """The sources of Python's own standard library, as installed; its patch version enters the fingerprint."""

    model_config = _STRICT
    leave_out: list[str] = [
        *("test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip"),
        *("site-packages", "dist-packages", "encodings"),
    ]
    """Folders that are not read; `encodings` holds hundreds of tables that are copies of each other but for a few lines."""


class SourceEntry(BaseModel):
    """One entry of `sources`: exactly one kind."""

    model_config = _STRICT
    package: Package | None = None
    hub: Hub | None = None
    files: Files | None = None
    stdlib: Stdlib | None = None

    @model_validator(mode="after")
    def _one(self) -> SourceEntry:
        if len([kind for kind in (self.package, self.hub, self.files, self.stdlib) if kind is not None]) != 1:
            raise ValueError("a source is one of package, hub, files, stdlib")
        return self


class Repairs(BaseModel):
    """What to do about damaged records; the recipe's `on_...` keys go before it."""

    model_config = _STRICT
    invalid_utf8: Literal["refuse", "repair", "drop"] = "refuse"
    surrogate: Literal["refuse", "repair", "drop"] = "refuse"
    nul: Literal["refuse", "repair", "drop"] = "refuse"
    missing_text: Literal["refuse", "drop"] = "refuse"
    wrong_type: Literal["refuse", "repair", "drop"] = "refuse"
    bad_record: Literal["refuse", "drop"] = "refuse"


class TextCard(BaseModel):
    """The whole block."""

    model_config = _STRICT
    sources: list[SourceEntry] = Field(min_length=1)
    """In order of preference; the first that can be had is read."""
    reader: str | None = None
    """How records are taken from the files; null chooses by the suffix of the name."""
    text_column: str = "text"
    """Column that holds the text."""
    template: str | None = None
    """Jinja template that makes the text out of the columns, instead of `text_column`."""
    columns: list[str] = []
    """Further columns to keep beside the text, as text or null."""
    document_characters: int = 1500
    """Length at which readers that group (plain text, plays, bible, python) close a document, in characters."""
    on: Repairs = Repairs()
    """What to do about damaged records."""
    max_overlap: float = Field(0.05, ge=0.0, le=1.0)
    """Largest part of validation or test documents that may be found again in train."""

    @model_validator(mode="after")
    def _known(self) -> TextCard:
        if self.reader is not None and self.reader not in READERS:
            raise ValueError(f"reader '{self.reader}' is unknown; known: {', '.join(READERS)}")
        if "text" in self.columns:
            raise ValueError("columns: 'text' is the document itself; name only further columns")
        return self
