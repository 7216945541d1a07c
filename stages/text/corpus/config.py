"""What the corpus stage can be told; the data card gives the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.contract import CardUse, Input, LocalFiles, Source, StageConfig

RefuseRepairDrop = Literal["refuse", "repair", "drop"]
RefuseDrop = Literal["refuse", "drop"]
Fraction = Annotated[float, Field(ge=0.0, le=0.5)]
Count = Annotated[int, Field(ge=1)]


class Config(StageConfig):
    """Raw text in; de-duplicated documents in the splits train, validation and test out.

    Where a field is null, the data card decides, and where the card says nothing the default that its sentence names.
    """

    produces: ClassVar[str] = "corpus"
    inputs: ClassVar[Mapping[str, Input]] = {}
    locations: ClassVar[frozenset[str]] = frozenset({"files"})

    card: str | None = None
    """Name of a data card in data_cards/, such as wiki-summaries. Ignored when `files` is given."""
    files: str | list[str] | None = None
    """Your own text, which needs no card and goes before one: files, folders or glob patterns (txt, jsonl, json, csv, tsv,
    parquet, and gz of these except parquet)."""
    license: str = "not stated"
    """Licence of your own `files`, carried into every artifact made from them; a card brings its own."""
    text_column: str | None = None
    """Column or key that holds the text of a record. Null: the card's, else `text`."""
    documents: Literal["auto", "file", "paragraph", "line"] = "auto"
    """How a plain text file becomes documents: the whole `file`, each `paragraph` (blocks between blank lines), each `line`, or
    `auto`: a short file is one document, a longer one is cut at blank lines (else at line ends) into `document_characters`."""
    document_characters: Annotated[int, Field(ge=16)] | None = None
    """Length in characters at which `auto`, and the readers of plays, verses and code, close a document. Null: the card's, else
    1,500."""
    max_characters: Annotated[int, Field(ge=64)] = 100_000
    """A document longer than this, in characters, is cut at white space (within a word where there is none)."""
    min_characters: Count = 1
    """A document shorter than this, in characters, is dropped and counted."""
    max_documents: Count | None = None
    """Stop reading after this many documents (counted before de-duplication). Null: read all."""

    normalization: Literal["NFC", "none"] = "NFC"
    """Unicode form of the text: one letter, one spelling (NFC), or as it came (none)."""
    on_invalid_utf8: RefuseRepairDrop | None = None
    """Bytes that are not UTF-8: refuse them, repair (each becomes U+FFFD), or drop the record. Null: the card's, else refuse."""
    on_surrogate: RefuseRepairDrop | None = None
    """Half a surrogate pair, from JSON like "\\ud800": refuse, repair (U+FFFD), or drop. Null: the card's, else refuse."""
    on_nul: RefuseRepairDrop | None = None
    """The character NUL: refuse it, repair (remove it), or drop the record. Null: the card's, else refuse."""
    on_missing_text: RefuseDrop | None = None
    """A record whose text is null, NaN or not there: refuse or drop it. Null: the card's, else refuse."""
    on_wrong_type: RefuseRepairDrop | None = None
    """Text that is a number, list or object: refuse it, repair (number to text; a list or object is dropped), or drop the
    record. Null: the card's, else refuse."""
    on_bad_record: RefuseDrop | None = None
    """A line or row that cannot be parsed, such as a JSON line cut off: refuse or drop it. Null: the card's, else refuse."""

    near_duplicate_threshold: Annotated[float, Field(ge=0.5, le=1.0)] | None = 0.8
    """Documents that share at least this part of their five-word sequences (Jaccard index) are copies: one stays. Null: off."""
    validation_fraction: Fraction = 0.05
    """Part of the documents that goes into the validation split."""
    test_fraction: Fraction = 0.05
    """Part of the documents that goes into the test split."""
    min_split_documents: Count = 4
    """A split with fewer documents than this is refused."""
    max_overlap: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Largest part of the validation or test documents that may be found again in train (half of their 13-word sequences). Null:
    the card's, else 0.05."""
    num_samples: Annotated[int, Field(ge=0, le=100)] = 8
    """Number of documents shown in the report."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.files is not None and not all(self.patterns or [""]):
            raise ValueError("'files' is empty; name a file, a folder or a glob pattern, or leave it out to read the card")
        if not self.files and self.card is None:
            raise ValueError("nothing to read: give 'card' (a data card's name) or 'files' (your own text)")
        if min(self.validation_fraction, self.test_fraction) <= 0:
            raise ValueError("validation_fraction and test_fraction must be above 0: later stages measure on both splits")
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters must not be above max_characters")
        return self

    @property
    def patterns(self) -> tuple[str, ...]:
        """The user's own files as written, or nothing when the card is read."""
        return (self.files,) if isinstance(self.files, str) else tuple(self.files or ())

    def sources(self) -> list[Source]:
        """Own files go before the card."""
        if self.files:
            return [LocalFiles(self.patterns)]
        assert self.card is not None
        return [CardUse(self.card)]
