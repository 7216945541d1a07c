"""What the tokenizer stage shows: metrics, one section of the report, the card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from pipeline.artifact import Artifact
from pipeline.contract import Context
from stages.common.corpus_io import license_of
from stages.common.encoding import byte_alphabet, count_bytes, token_bytes
from stages.common.plots import line_chart
from stages.text.tokenizer.bpe import merge_steps, merges_of, tokens_by_merges
from stages.text.tokenizer.config import MIN_VOCAB_SIZE, SPECIAL_TOKENS, Config
from stages.text.tokenizer.metrics import Measured, injected_ids, round_trips

ROWS = 15
"""Rows of the tables of longest and rarest tokens and of first merges."""


@dataclass(frozen=True)
class Facts:
    """What the training cost."""

    learned_bytes: int
    seconds: float
    peak_memory_gib: float


def write_metrics(context: Context, measured: Mapping[str, Measured], facts: Facts, *, vocab_size: int) -> None:
    """Record bytes per token by split, unused tokens, and what it cost."""
    for split, values in measured.items():
        context.metric(
            "bytes_per_token",
            values.num_bytes / max(1, values.num_tokens),
            unit="byte/token",
            higher_is_better=True,
            n=values.num_documents,
            split=split,
            headline=split == "test",
            items="documents",
        )
    unused = int(_unused(measured["train"].counts))
    shown = {"n": vocab_size - len(SPECIAL_TOKENS), "split": "train", "items": "tokens"}
    context.metric("unused_tokens", unused, unit="token", higher_is_better=False, **shown)
    num_documents = sum(values.num_documents for values in measured.values())
    speed = encode_speed(measured)
    context.metric("encode_megabytes_per_second", speed, unit="MB/s", higher_is_better=True, n=num_documents, items="documents")
    context.metric("training_seconds", facts.seconds, unit="s", higher_is_better=False, n=facts.learned_bytes, items="bytes")
    context.metric("peak_memory_gib", facts.peak_memory_gib, unit="GiB", higher_is_better=False, n=1, items="runs")


def encode_speed(measured: Mapping[str, Measured]) -> float:
    """Return megabytes (10^6) of text encoded per second of encoding."""
    seconds = sum(values.seconds for values in measured.values())
    return sum(values.num_bytes for values in measured.values()) / 1e6 / max(seconds, 1e-9)


def write_section(
    context: Context,
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    measured: Mapping[str, Measured],
    facts: Facts,
    *,
    sample: Sequence[str],
) -> None:
    """Write the stage's part of the report; `sample` is test text for the curve of bytes per token."""
    context.section.describe(
        title="Tokenizer",
        idea="A model reads numbers, so text is cut into tokens: byte-pair encoding starts from the 256 bytes and again and "
        "again glues the neighbouring pair that occurs most often into a new token. Frequent words end as one token, rare "
        "ones as a few, and every text can be written and comes back exactly.",
        formula="next merge = argmax over pairs (a, b) of count(a b)\nbytes per token = UTF-8 bytes / tokens",
    )
    _split_table(context, measured)
    _merge_curve(context, tokenizer, sample)
    _merge_tables(context, tokenizer, measured["train"].counts)
    _round_trip_table(context, tokenizer)
    _token_tables(context, tokenizer, measured["train"])
    context.section.facts(
        "Cost and settings",
        {
            "vocabulary": len(tokenizer),
            "merges": len(tokenizer) - MIN_VOCAB_SIZE,
            "cut into words": config.pretokenizer,
            "bytes learned from": facts.learned_bytes,
            "training, seconds": facts.seconds,
            "encoding, MB/s": encode_speed(measured),
            "peak memory of the process, GiB": facts.peak_memory_gib,
        },
    )


def write_card(context: Context, config: Config, measured: Mapping[str, Measured], corpus: Artifact) -> None:
    """Write `card.md` for people; the licence of the texts is carried on."""
    rate = measured["test"].num_bytes / max(1, measured["test"].num_tokens)
    special = ", ".join(f"`{token}`" for token in SPECIAL_TOKENS)
    text = f"""---
license: {json.dumps(license_of(corpus))}
library_name: transformers
tags: [tokenizer, byte-level-bpe]
---
# Byte-level BPE tokenizer, {config.vocab_size:,} tokens

Learned from the train split of a corpus under the licence above; {rate:.2f} bytes per token on its test split.
Load it with `AutoTokenizer.from_pretrained("tokenizer")`. Ids 0 to {len(SPECIAL_TOKENS) - 1} are special ({special}),
ids {len(SPECIAL_TOKENS)} to {MIN_VOCAB_SIZE - 1} are the bytes. `encode` adds no token: put `{SPECIAL_TOKENS[0]}`
before and after a document yourself.

Text that contains a special token's characters is turned into that control token by the plain call `tokenizer(text)`, as
with every tokenizer of this kind. For text that you did not write yourself pass `split_special_tokens=True`, as the stages
of this pipeline do. Chats: `apply_chat_template`, roles system, user and assistant.
"""
    (context.directory / "card.md").write_text(text, encoding="utf-8")


def show(token: bytes) -> str:
    """Return a token for people: blanks as U+2423, control characters as escapes, parts of a character as hex."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return "\u27e8" + token.hex(" ") + "\u27e9"
    return "".join("\u2423" if c == " " else c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _split_table(context: Context, measured: Mapping[str, Measured]) -> None:
    rows: list[list[str | int | float | bool | None]] = [
        [split, values.num_documents, values.num_bytes, values.num_tokens, values.num_bytes / max(1, values.num_tokens)]
        for split, values in measured.items()
    ]
    columns = ["split", "documents", "bytes", "tokens", "bytes per token"]
    caption = (
        "More bytes per token mean shorter sequences. A gap between train and test would mean a vocabulary learned by heart."
    )
    context.section.table("How far it compresses", columns, rows, caption=caption)


def _merge_curve(context: Context, tokenizer: PreTrainedTokenizerBase, sample: Sequence[str]) -> None:
    backend = tokenizer.backend_tokenizer
    num_merges, num_bytes = len(merges_of(backend)), int(count_bytes(sample).sum())
    if not num_merges or not num_bytes:
        return
    counts = sorted({0, *np.unique(np.geomspace(1, num_merges, 10).astype(int)).tolist()})
    totals = tokens_by_merges(backend, sample, counts)
    rates = [num_bytes / total for total in totals]
    path = line_chart(
        context.figures / "bytes_per_token.svg",
        {"test": (counts[1:], rates[1:])},
        xlabel="merges used",
        ylabel="bytes per token",
        log_x=True,
        hlines={"bytes alone": 1.0},
    )
    context.section.figure(
        path, "By and large each merge saves fewer tokens than those before it; mark that the axis of merges is logarithmic."
    )


def _merge_tables(context: Context, tokenizer: PreTrainedTokenizerBase, counts: np.ndarray) -> None:
    merges = merges_of(tokenizer.backend_tokenizer)
    if not merges:
        return
    word = _teaching_word(tokenizer, counts)
    steps = merge_steps(word, {pair: rank for rank, pair in enumerate(merges)})
    context.section.table(
        f"One word, merge by merge: {_text(word)}",
        ["step", "merge learned as number", "written as"],
        [
            [step, None if rank is None else rank + 1, " | ".join(_text(part) for part in parts)]
            for step, (parts, rank) in enumerate(steps)
        ],
        caption="Of all pairs in the word, the one that was learned first is glued first.",
    )
    context.section.table(
        "The first merges",
        ["number", "left", "right", "new token"],
        [[rank + 1, _text(a), _text(b), _text(a + b)] for rank, (a, b) in enumerate(merges[:ROWS])],
        caption="\u2423 is a blank: the most frequent pairs are the beginnings of common words.",
    )


def _round_trip_table(context: Context, tokenizer: PreTrainedTokenizerBase) -> None:
    context.section.table(
        "Hard texts and back",
        ["text", "bytes", "tokens", "comes back exactly"],
        [list(row) for row in round_trips(tokenizer)],
        caption="A lone surrogate (half of a UTF-16 pair) is no text in UTF-8: it is refused with its place, never replaced.",
    )
    given = sum(injected_ids(tokenizer).values())
    context.section.text(
        f"The characters of a special token inside a document stay text: the stages encode data without control tokens. The "
        f"plain call tokenizer(text) does give control tokens ({given} of {len(SPECIAL_TOKENS)} tried); pass "
        "split_special_tokens=True for text that others wrote."
    )


def _token_tables(context: Context, tokenizer: PreTrainedTokenizerBase, train: Measured) -> None:
    table = token_bytes(tokenizer)
    longest = sorted(range(MIN_VOCAB_SIZE, len(table)), key=lambda index: (-len(table[index]), index))[:ROWS]
    columns = ["id", "token", "bytes", "times in train"]
    rows = [[index, show(table[index]), len(table[index]), int(train.counts[index])] for index in longest]
    context.section.table("Longest tokens", columns, rows)
    learned = np.arange(MIN_VOCAB_SIZE, len(table))
    rarest = learned[np.argsort(train.counts[learned], kind="stable")][:ROWS]
    rows = [[int(index), show(table[index]), len(table[index]), int(train.counts[index])] for index in rarest]
    caption = (
        f"{_unused(train.counts)} of {len(table) - len(SPECIAL_TOKENS)} tokens do not occur in the {train.num_documents} train "
        "documents counted: bytes that the corpus lacks, and steps on the way to a longer token."
    )
    context.section.table("Rarest tokens", columns, rows, caption=caption)


def _unused(counts: np.ndarray) -> int:
    return int((counts[len(SPECIAL_TOKENS) :] == 0).sum())


def _teaching_word(tokenizer: PreTrainedTokenizerBase, counts: np.ndarray) -> str:
    # The most frequent token that is a word of six letters or more; the longest token where there is none.
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    learned = range(MIN_VOCAB_SIZE, len(tokens))
    words = [index for index in learned if len(tokens[index]) >= 6 and _text(tokens[index]).lstrip("\u2423").isalpha()]
    best = max(words, key=lambda i: counts[i]) if words else max(learned, key=lambda i: len(tokens[i]))
    return str(tokens[best])


def _text(token: str) -> str:
    alphabet = byte_alphabet()
    return show(bytes(alphabet[character] for character in token))
