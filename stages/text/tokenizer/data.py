"""Texts for the tokenizer, streamed: memory does not grow with the corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from pipeline.errors import DataError

ROWS_AT_ONCE = 1000
PIECE_CHARACTERS = 2**16
"""Longer documents reach the trainer in pieces: one line of 50 MB without a blank would else be one word of 50 MB."""


def count_text_bytes(dataset: Dataset) -> int:
    """Return the UTF-8 bytes of column `text`; raises DataError on a missing column or text, naming the row."""
    if "text" not in dataset.column_names:
        raise DataError(f"corpus: no column 'text', only {', '.join(dataset.column_names)}; build it with stages.text.corpus")
    total = 0
    for start, table in zip(range(0, len(dataset), ROWS_AT_ONCE), dataset.with_format("arrow").iter(ROWS_AT_ONCE), strict=True):
        column: pa.ChunkedArray = table["text"]
        if column.null_count:
            row = start + pc.index(pc.is_null(column), True).as_py()
            raise DataError(f"corpus: row {row} has no text (null); build the corpus with stages.text.corpus, which repairs it")
        total += pc.sum(pc.binary_length(column)).as_py() or 0
    return total


def thinned(dataset: Dataset, max_bytes: int) -> Dataset:
    """Return `dataset`, or every k-th document of it with the smallest k that fits `max_bytes` on average."""
    step = max(1, -(-count_text_bytes(dataset) // max_bytes))
    return dataset if step == 1 else dataset.select(range(0, len(dataset), step))


def batches(dataset: Dataset) -> Iterator[list[str]]:
    """Yield the texts, some hundred at a time."""
    for batch in dataset.select_columns("text").iter(ROWS_AT_ONCE):
        yield batch["text"]


def pieces(dataset: Dataset, on_progress: Callable[[int, int], None]) -> Iterator[list[str]]:
    """Yield the texts for the trainer, long ones cut; `on_progress` is called with (documents done, documents in all)."""
    done = 0
    for texts in batches(dataset):
        yield [text[at : at + PIECE_CHARACTERS] for text in texts for at in range(0, len(text), PIECE_CHARACTERS)]
        done += len(texts)
        on_progress(done, len(dataset))
