"""Documents to predict, prompts to continue, and the texts that the model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from stages.common.corpus_io import load_split
from stages.common.encoding import encode_texts
from stages.common.metrics.novelty import word_spans

ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Prompt:
    """The beginning of a document, and how the document goes on."""

    text: str
    truth: str


def spread(dataset: Dataset, count: int | None) -> list[str]:
    """Return `count` texts at even distances (all for None): a first-N subset would lean to one part of the corpus."""
    if count is None or count >= len(dataset):
        return list(dataset["text"])
    return list(dataset.select(np.linspace(0, len(dataset) - 1, count).round().astype(int))["text"])


def prompts(texts: Sequence[str], count: int, num_words: int) -> list[Prompt]:
    """Return the beginnings of `count` documents that are at least three times as long as their beginning.

    Raises:
        DataError: no document is long enough.
    """
    long_enough = [(text, spans) for text in texts if len(spans := word_spans(text)) >= 3 * num_words]
    if count and not long_enough:
        raise DataError(
            f"prompt_words is {num_words}, but none of the {len(texts)} documents has {3 * num_words} words to take a prompt "
            "and its continuation from; lower prompt_words, or set num_samples to 0"
        )
    places = np.linspace(0, len(long_enough) - 1, min(count, len(long_enough))).round().astype(int)
    chosen = [long_enough[place] for place in places]
    return [Prompt(text[: spans[num_words - 1][1]], text[spans[num_words - 1][1] :]) for text, spans in chosen]


def cut_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str], num_tokens: int) -> list[str]:
    """Return the first `num_tokens` tokens of each text, as text."""
    rows = encode_texts(tokenizer, texts)
    return [tokenizer.decode(row[:num_tokens], clean_up_tokenization_spaces=False) for row in rows]


def equally_long(first: list[str], second: list[str]) -> tuple[list[str], list[str]]:
    """Return the texts pair by pair, the longer of each cut to the words of the shorter; pairs with an empty one go out."""
    pairs = []
    for a, b in zip(first, second, strict=True):
        spans = word_spans(a), word_spans(b)
        words = min(map(len, spans))
        if words:
            pairs.append((a[: spans[0][words - 1][1]], b[: spans[1][words - 1][1]]))
    return [a for a, _ in pairs], [b for _, b in pairs]


def training_texts(corpora: list[Artifact], on_progress: Callable[[int, int], None]) -> Iterator[str]:
    """Yield every train document of every corpus, read from disk as it is needed."""
    splits = [load_split(corpus, "train") for corpus in corpora]
    total, done = sum(len(split) for split in splits), 0
    for split in splits:
        for batch in split.select_columns("text").iter(ROWS_AT_ONCE):
            yield from batch["text"]
            done += len(batch["text"])
            on_progress(done, total)
