"""What the evaluate stage shows: metrics, one section of the report, the card."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from pipeline.contract import Context
from stages.common.corpus_io import license_of
from stages.common.metrics.novelty import word_spans
from stages.common.plots import bar_chart, line_chart
from stages.text.evaluate.metrics import CONTAMINATION_SIZE, Invariance, Prediction

SHOWN_SAMPLES = 8
"""Samples in the report; all are in samples/samples.jsonl."""


def open_section(context: Context) -> None:
    """Say what the stage is about."""
    context.section.describe(
        title="Evaluation",
        idea="A language model is a predictor: the fewer bits it needs to tell the next byte of a text that it has never seen, "
        "the more of the language it has learned. What it writes by itself is then compared with real text: does it go "
        "round in circles, and does it copy what it was trained on?",
        formula="bits per byte = Σ −ln p(token | tokens before it) / (ln 2 · UTF-8 bytes)\nperplexity = exp(nats per token)",
    )


def write_prediction(
    context: Context, predictions: Mapping[str, Prediction], invariance: Invariance, context_length: int
) -> None:
    """Record bits per byte, loss and perplexity of each split, the curve by position, and the batch check."""
    for split, found in predictions.items():
        shared = {"n": found.num_documents, "split": split, "items": "documents", "higher_is_better": False}
        extra = {"interval": list(found.interval)} if found.interval else {}
        context.metric("bits_per_byte", found.bits_per_byte, unit="bit/byte", **shared, **extra)
        context.metric("nats_per_token", found.nats_per_token, unit="nat/token", **shared)
        context.metric("perplexity", found.perplexity, unit="1", **shared)
    _metric(
        context, "batch_logit_difference", invariance.logit_difference, unit="1", n=invariance.num_documents, items="documents"
    )
    difference = invariance.bits_per_byte_difference
    shown = {"n": invariance.num_documents, "items": "documents"}
    _metric(context, "batch_bits_per_byte_difference", difference, "bit/byte", **shown)
    _prediction_blocks(context, predictions)
    context.section.facts(
        "How it was measured",
        {
            "context length, tokens": context_length,
            "precision": "float32",
            "largest logit difference, alone or in a padded batch": invariance.logit_difference,
            "difference in bits per byte, batch size 1 or more": invariance.bits_per_byte_difference,
        },
    )


def write_contamination(context: Context, seen: np.ndarray, split: str) -> None:
    """Record which share of the documents the training texts hold."""
    _metric(context, "contaminated_share", float(seen.mean()), "1", n=len(seen), split=split, items="documents")
    context.section.text(
        f"Of the {len(seen)} {split} documents, {int(seen.sum())} are in the training texts (half of their runs of "
        f"{CONTAMINATION_SIZE} words or more)."
    )


def write_samples(context: Context, rows: list[dict[str, str]], how: str) -> None:
    """Show prompts, what the model wrote, and how the document really goes on."""
    context.section.samples(
        "What it writes",
        ["prompt", "generated", "real continuation"],
        [[row["prompt"], row["generated"], row["real"]] for row in rows[:SHOWN_SAMPLES]],
        caption=f"{how} Not chosen by hand: documents at even distances. All {len(rows)} are in samples/samples.jsonl.",
    )


def write_repetition(
    context: Context, samples: Mapping[str, float], truths: Mapping[str, float], *, num_samples: int, split: str
) -> None:
    """Compare how samples and real texts of equal length repeat themselves."""
    names = {
        "repeated_4": "4-word runs that repeat within a text",
        "distinct_1": "distinct words over all texts",
        "distinct_2": "distinct 2-word runs over all texts",
        "distinct_3": "distinct 3-word runs over all texts",
    }
    for key, higher in (("repeated_4", False), ("distinct_2", True)):
        shown = {"n": num_samples, "items": "samples", "split": split, "title": f"share of {names[key]}"}
        context.metric(key, samples[key], unit="1", higher_is_better=higher, real=truths[key], **shown)
    context.section.table(
        "Repetition",
        ["share of", "generated", "real text"],
        [[label, samples[key], truths[key]] for key, label in names.items()],
        caption=f"{num_samples} pairs of equally long texts. Real text is the yardstick: more repetition means circles.",
    )


def write_novelty(context: Context, found: Mapping[str, float | list[str]], *, num_samples: int, split: str) -> None:
    """Compare how much of samples and of real text the training texts hold."""
    rows: list[list[str | int | float | bool | None]] = []
    for size in (4, 8):
        if f"novel_{size}" in found and f"reference_novel_{size}" in found:
            ours, real = found[f"novel_{size}"], found[f"reference_novel_{size}"]
            title = f"share of {size}-word runs that no training text holds"
            shown = {"n": num_samples, "items": "samples", "split": split, "title": title}
            context.metric(f"novel_{size}", float(ours), unit="1", higher_is_better=None, real=float(real), **shown)
            rows.append([title, float(ours), float(real)])
    for key, label in (
        ("longest_copy_words", "longest copied run, words"),
        ("mean_longest_copy_words", "the same, mean by text"),
    ):
        rows.append([label, float(found[key]), float(found[f"reference_{key}"])])
    _metric(
        context,
        "longest_copy_words",
        float(found["longest_copy_words"]),
        "word",
        n=num_samples,
        items="samples",
        split=split,
        real=float(found["reference_longest_copy_words"]),
    )
    longest = max(found["longest_copies"], key=lambda text: len(word_spans(text)))
    context.section.table(
        "Novelty",
        ["measure", "generated", "real text"],
        rows,
        caption=f"Far below real text means recited, far above means invented words. Longest copy: \u201c{longest[:300]}\u201d",
    )


def write_card(context: Context, predictions: Mapping[str, Prediction], context_length: int) -> None:
    """Write `card.md` for people; the licence of the texts is carried on, as the samples quote them."""
    lines = [
        f"- {split}: {found.bits_per_byte:.4f} bits per byte, {found.nats_per_token:.4f} nats per token "
        f"({found.num_documents} documents, {int(found.num_bytes.sum()):,} bytes)"
        for split, found in predictions.items()
    ]
    text = f"""---
license: {json.dumps(license_of(context.input("corpus")))}
---
# Evaluation

{chr(10).join(lines)}

Read with a context of {context_length} tokens and half of it as overlap; every token scored once, the end token not counted.
`samples/samples.jsonl` holds prompts from the corpus, what the model wrote, and the real continuation.
"""
    (context.directory / "card.md").write_text(text, encoding="utf-8")


def _prediction_blocks(context: Context, predictions: Mapping[str, Prediction]) -> None:
    columns = ["split", "bits per byte", "95 % from", "to", "nats per token", "perplexity", "documents", "bytes", "without text"]
    context.section.table(
        "How well it predicts",
        columns,
        [
            [
                split,
                found.bits_per_byte,
                *(found.interval or (None, None)),
                found.nats_per_token,
                found.perplexity,
                found.num_documents,
                int(found.num_bytes.sum()),
                len(found.scores.skipped),
            ]
            for split, found in predictions.items()
        ],
        caption="Intervals by bootstrap over documents. Bits per byte compare across tokenizers, perplexity does not.",
    )
    path = bar_chart(
        context.figures / "bits_per_byte.svg",
        list(predictions),
        [found.bits_per_byte for found in predictions.values()],
        ylabel="bits per byte",
        intervals=[found.interval or (found.bits_per_byte,) * 2 for found in predictions.values()],
    )
    context.section.figure(path, "Bits per byte with the 95 % interval; 8 would be no knowledge at all.")
    path = line_chart(
        context.figures / "perplexity_by_position.svg",
        {split: by_position(found.scores.position_nll_sum, found.scores.position_count) for split, found in predictions.items()},
        xlabel="position in the window, tokens",
        ylabel="perplexity",
        log_x=True,
        log_y=True,
    )
    context.section.figure(
        path,
        "How hard tokens are to guess, by how many tokens of the window stand before them. More text before a token helps, but "
        "openings follow a pattern and only long documents have late positions: the curve need not fall.",
    )


def by_position(nll_sum: np.ndarray, count: np.ndarray, bins: int = 40) -> tuple[list[float], list[float]]:
    """Return (position, perplexity) in at most `bins` bins of growing width, from 1; positions never scored are left out."""
    edges = np.unique(np.geomspace(1, len(count) + 1, bins + 1).round().astype(int)) - 1
    totals, sums = np.add.reduceat(count, edges[:-1]), np.add.reduceat(nll_sum, edges[:-1])
    middles = np.sqrt((edges[:-1] + 1) * edges[1:].astype(float))
    kept = totals > 0
    return middles[kept].tolist(), np.exp(sums[kept] / totals[kept]).tolist()


def _metric(context: Context, name: str, value: float, unit: str, *, n: int, split: str | None = None, **extra: object) -> None:
    context.metric(name, value, unit=unit, higher_is_better=False, n=n, split=split, **extra)
