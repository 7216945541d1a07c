"""Near-duplicate search: MinHash signatures, banded into buckets (LSH), each candidate checked by its true Jaccard index.

Sources: Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", chapter 3. With 20 bands of 6 rows, two documents of similarity s meet in a bucket with probability
1 - (1 - s^6)^20: 0.998 at s = 0.8, 0.92 at 0.7, 0.27 at 0.5. Numbers of memory per document: 160 bytes on disk, 8 in RAM.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from stages.text.corpus.shingles import Hashes, mix, sequences, whole, word_hashes

SHINGLE_WORDS = 5
BANDS, ROWS = 20, 6
MOST_COMPARED = 256
"""Representatives of one bucket that a document is compared with: a bound for corpora made of boilerplate."""

_CHUNK = 2048
_NO_WORDS = np.uint64(0)


def shingles(text: str) -> Hashes:
    """Return the distinct five-word sequences of `text`, sorted; a shorter text is one sequence, one without words none."""
    words = word_hashes(text)
    if 0 < len(words) < SHINGLE_WORDS:
        return np.array([whole(words)], dtype=np.uint64)
    return np.unique(sequences(words, SHINGLE_WORDS))


def jaccard(first: Hashes, second: Hashes) -> float:
    """Return the size of the intersection over the size of the union, of two sets."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / max(1, len(first) + len(second) - both)


def _functions() -> tuple[Hashes, Hashes]:
    """Return the multipliers (odd) and shifts of the hash functions, fixed for all time; shape (BANDS * ROWS,) each."""
    numbers = mix(np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64))
    return numbers[: BANDS * ROWS] | np.uint64(1), numbers[BANDS * ROWS :]


_MULTIPLIERS, _SHIFTS = _functions()


def band_keys(text: str) -> Hashes:
    """Return the bucket of `text` in each band; shape (BANDS,). Zeros when it has no words."""
    values = shingles(text)
    if not len(values):
        return np.full(BANDS, _NO_WORDS)
    signature = np.full(BANDS * ROWS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(values), _CHUNK):
        hashed = values[start : start + _CHUNK, None] * _MULTIPLIERS + _SHIFTS
        np.minimum(signature, hashed.min(axis=0), out=signature)
    keys = np.zeros(BANDS, dtype=np.uint64)
    for row in range(ROWS):
        keys = mix(keys * np.uint64(31) + signature.reshape(BANDS, ROWS)[:, row])
    return keys | np.uint64(1)


class BandFile:
    """The buckets of all documents, on disk."""

    def __init__(self, path: Path, texts: Iterable[str]) -> None:
        self.path = path
        self.num_documents = 0
        with open(path, "wb", buffering=1 << 20) as file:
            for text in texts:
                file.write(band_keys(text).tobytes())
                self.num_documents += 1

    def crowded(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (document, bucket) of every bucket that holds two documents or more, sorted by document."""
        documents, buckets = [], []
        first_bucket = 0
        if not self.num_documents:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        table = np.memmap(self.path, dtype=np.uint64, mode="r", shape=(self.num_documents, BANDS))
        for band in range(BANDS):
            keys = np.array(table[:, band])
            order = np.argsort(keys, kind="stable")
            ordered = keys[order]
            same = ordered[1:] == ordered[:-1]
            member = (np.append(same, False) | np.append(False, same)) & (ordered != _NO_WORDS)
            number = np.cumsum(np.append(True, ~same)) + first_bucket
            documents.append(order[member])
            buckets.append(number[member])
            first_bucket = int(number[-1])
        document, bucket = np.concatenate(documents), np.concatenate(buckets)
        order = np.argsort(document, kind="stable")
        return document[order], bucket[order]


def near_duplicates(bands: BandFile, text_of: Callable[[int], str], threshold: float) -> np.ndarray:
    """Return which documents are near-duplicates of an earlier one that stays; shape (documents,), bool.

    Documents come in the order of their hashes, so what stays depends on the documents, not on the order of files. A
    document goes if its Jaccard index with one that stays is at least `threshold`.
    """
    dropped = np.zeros(bands.num_documents, dtype=bool)
    kept: defaultdict[int, list[int]] = defaultdict(list)
    set_of = lru_cache(maxsize=1024)(lambda rank: shingles(text_of(rank)))
    documents, buckets = bands.crowded()
    bounds = np.flatnonzero(np.diff(documents, prepend=-1, append=-1))
    for start, end in pairwise(bounds):
        rank, own = int(documents[start]), buckets[start:end].tolist()
        candidates = sorted({other for bucket in own for other in kept[bucket][:MOST_COMPARED]})
        if any(_alike(set_of(rank), set_of(other), threshold) for other in candidates):
            dropped[rank] = True
            continue
        for bucket in own:
            kept[bucket].append(rank)
    return dropped


def _alike(first: Hashes, second: Hashes, threshold: float) -> bool:
    if min(len(first), len(second)) < threshold * max(len(first), len(second)):
        return False  # the sizes alone forbid it
    return jaccard(first, second) >= threshold
