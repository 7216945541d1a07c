"""What the corpus tells: metrics, statistics.json, a section for the report, samples, and a card for people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.contract import Context, write_json
from stages.common.corpus_io import load_split
from stages.common.plots import histogram
from stages.common.xz import xz_bits_per_byte
from stages.text.corpus.config import Config
from stages.text.corpus.gates import KINDS
from stages.text.corpus.origin import Origin
from stages.text.corpus.overlap import CONTAINED, SEQUENCE_WORDS, Overlap
from stages.text.corpus.splits import SplitStatistics


@dataclass(frozen=True)
class Corpus:
    """What was measured while the data was written.

    Attributes:
        splits: sizes of each split.
        overlap: what of validation and test was found in train.
        exact_copies, near_copies: documents that were removed.
        findings: what the gates found (`Gates.table`).
    """

    splits: dict[str, SplitStatistics]
    overlap: dict[str, Overlap]
    exact_copies: int
    near_copies: int
    findings: list[dict[str, Any]]


def write(config: Config, context: Context, origin: Origin, corpus: Corpus) -> None:
    """Write everything that people read of a corpus."""
    xz = xz_bits_per_byte(load_split(context.directory, "test")["text"])
    statistics = statistics_of(origin, corpus, xz)
    write_json(context.directory / "statistics.json", statistics)
    _metrics(context, corpus, xz)
    samples = load_split(context.directory, "train")[: config.num_samples]["text"]
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in samples)
    (context.samples / "documents.jsonl").write_text(lines, encoding="utf-8")
    lengths = np.concatenate([part for split in corpus.splits.values() for part in split.lengths])
    figure = histogram(context.figures / "lengths.svg", lengths, xlabel="length of a document (characters)", log_x=True)
    _section(context, origin, statistics, figure, samples)
    (context.directory / "card.md").write_text(_card(origin, statistics), encoding="utf-8")


def statistics_of(origin: Origin, corpus: Corpus, xz: float) -> dict[str, Any]:
    """Return what `statistics.json` holds."""
    return {
        "name": origin.name,
        "license": origin.license,
        "source": origin.source,
        "splits": {
            name: {"documents": split.documents, "bytes": split.bytes, "characters": split.characters, "words": split.words}
            for name, split in corpus.splits.items()
        },
        "removed": {"exact_copies": corpus.exact_copies, "near_copies": corpus.near_copies},
        "findings": corpus.findings,
        "overlap": {
            name: {
                "documents": overlap.num_documents,
                "equal": overlap.equal,
                "contained": overlap.contained,
                "sequence_share": overlap.sequence_share,
            }
            for name, overlap in corpus.overlap.items()
        },
        "xz_bits_per_byte": {"test": xz},
    }


def _metrics(context: Context, corpus: Corpus, xz: float) -> None:
    for name, split in corpus.splits.items():
        for what, value in (("documents", split.documents), ("bytes", split.bytes), ("words", split.words)):
            context.metric(
                what, value, unit=what, higher_is_better=None, n=split.documents, split=name, items="documents", listed=False
            )
    read = sum(split.documents for split in corpus.splits.values()) + corpus.exact_copies + corpus.near_copies
    context.metric("exact_copies", corpus.exact_copies, unit="documents", higher_is_better=None, n=read, items="documents")
    context.metric("near_copies", corpus.near_copies, unit="documents", higher_is_better=None, n=read, items="documents")
    for name, overlap in corpus.overlap.items():
        n = overlap.num_documents
        shown = {"n": n, "split": name, "items": "documents"}
        context.metric("overlap", overlap.share, unit="share of documents", higher_is_better=False, **shown)
    n = corpus.splits["test"].documents
    shown = {"n": n, "split": "test", "items": "documents", "title": "bits per byte, xz -9"}
    context.metric("xz_bits_per_byte", xz, unit="bit/byte", higher_is_better=None, **shown)


def _section(context: Context, origin: Origin, statistics: dict[str, Any], figure: str, samples: list[str]) -> None:
    section = context.section
    section.describe(
        title="Corpus",
        idea="Text is cleaned, copies are removed, and what is left is divided into three parts that share no document. The "
        "model learns from train, choices are made on validation, and test is looked at only to say how good the result is.",
        formula="h = sha256(text) / 2²⁵⁶\nsplit(text) = test if h < t, validation if h < t + v, else train",
    )
    section.text(f"Source: {origin.source} ({origin.name}). Licence of the texts: {origin.license}.")
    columns = ["split", "documents", "bytes", "words", "words per document"]
    rows: list[list[Any]] = [
        [name, split["documents"], split["bytes"], split["words"], split["words"] / max(1, split["documents"])]
        for name, split in statistics["splits"].items()
    ]
    section.table(
        "Size of the splits",
        columns,
        rows,
        caption="The hash of a document alone decides its split, so adding documents moves none of the others.",
    )
    section.table("What was measured", ["statistic", "value", "what it tells"], _explained(statistics))
    if statistics["findings"]:
        findings = [[KINDS[row["kind"]], row["action"], row["count"], row["examples"][0]] for row in statistics["findings"]]
        section.table(
            "What the gates found",
            ["finding", "treatment", "count", "first example"],
            findings,
            caption="Every repair and every dropped record is counted; nothing is changed in silence.",
        )
    section.figure(
        figure, "Length of the documents. A model reads a long one in windows, a short one shares a window with others."
    )
    section.samples("Some documents of train", ["text"], [[text] for text in samples], caption="The first by content hash.")
    section.facts("Exact numbers", _exact(statistics))


def _explained(statistics: dict[str, Any]) -> list[list[Any]]:
    """Return [statistic, value, one sentence for a learner]."""
    removed, rows = statistics["removed"], []
    rows.append(
        ["exact copies removed", removed["exact_copies"], "A text that is there twice counts twice, and may leak into test."]
    )
    sentence = "Nearly equal texts would be learnt by heart rather than understood."
    rows.append(["near copies removed", removed["near_copies"], sentence])
    for name, overlap in statistics["overlap"].items():
        share = overlap["contained"] / max(1, overlap["documents"])
        sentence = (
            f"Part of the {name} documents that train gives away: {CONTAINED:.0%} of their {SEQUENCE_WORDS}-word runs are in it."
        )
        rows.append([f"overlap of {name} with train", f"{share:.2%}", sentence])
    sentence = "A general compressor needs this many bits for a byte of the test text; a language model should need fewer."
    rows.append(["xz -9 on test, bit/byte", statistics["xz_bits_per_byte"]["test"], sentence])
    return rows


def _exact(statistics: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, overlap in statistics["overlap"].items():
        facts |= {f"{name}: documents equal to one of train": overlap["equal"]}
        facts |= {f"{name}: share of {SEQUENCE_WORDS}-word sequences in train": overlap["sequence_share"]}
    return facts


def _card(origin: Origin, statistics: dict[str, Any]) -> str:
    """A short card for people; it quotes no document, so no text can break out of it."""
    rows = "\n".join(
        f"| {name} | {split['documents']:,} | {split['bytes']:,} | {split['words']:,} |"
        for name, split in statistics["splits"].items()
    )
    findings = "\n".join(f"- {KINDS[row['kind']]}: {row['count']:,} ({row['action']})" for row in statistics["findings"])
    return (
        f"""---
license: {json.dumps(origin.license)}
pretty_name: {json.dumps(origin.name)}
---

# Corpus: {origin.name}

Read from: {origin.source}. Licence of the texts: {origin.license}; whatever is made from them carries it on.

| split | documents | bytes | words |
|---|---|---|---|
{rows}

Exact copies removed: {statistics["removed"]["exact_copies"]:,}. Near copies removed: {statistics["removed"]["near_copies"]:,}.
The sha256 of a document decides its split.

Findings:
{findings or "- none"}

{origin.prose}
""".rstrip()
        + "\n"
    )
