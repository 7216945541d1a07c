"""The overlap gate: how much of validation and test can be found again in train.

A model that has seen the test text looks better than it is. Thirteen words in a row are taken as the same passage, after
Brown et al., "Language Models are Few-Shot Learners" (2020), appendix C.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stages.text.corpus.shingles import Hashes, sequences, whole, word_hashes

SEQUENCE_WORDS = 13
CONTAINED = 0.5
"""A document overlaps when at least this part of its 13-word sequences occurs in train."""
MOST_SEQUENCES = 1_000_000
"""Sequences of a split that are looked for, from the first documents by hash: below 64 MB of memory, whatever the corpus."""


@dataclass(frozen=True)
class Overlap:
    """What was found of one split.

    Attributes:
        num_documents: documents that were looked for.
        equal: those whose whole sequence of words is a document of train.
        contained: those of which at least half the 13-word sequences occur in train, equal ones included.
        sequence_share: part of all 13-word sequences that occur in train.
    """

    num_documents: int
    equal: int
    contained: int
    sequence_share: float

    @property
    def share(self) -> float:
        """Part of the documents that overlap."""
        return self.contained / self.num_documents if self.num_documents else 0.0


class Probe:
    """The sequences of one split, to be looked for in train."""

    def __init__(self, texts: Iterable[str], most_sequences: int = MOST_SEQUENCES) -> None:
        documents = list(_until(map(word_hashes, texts), most_sequences))
        runs = [sequences(words, SEQUENCE_WORDS) for words in documents]
        self._wholes = [whole(words) for words in documents]
        self._owner = np.repeat(np.arange(len(runs), dtype=np.int32), [len(run) for run in runs])
        self._sequences: Hashes = np.concatenate([*runs, np.empty(0, np.uint64)])
        self._sorted = np.unique(self._sequences)
        self._seen = np.zeros(len(self._sorted), dtype=bool)
        self._wanted = set(self._wholes) - {0}
        self._equal: set[int] = set()

    def look(self, words: Hashes) -> None:
        """Look at one document of train."""
        if (number := whole(words)) in self._wanted:
            self._equal.add(number)
        runs = sequences(words, SEQUENCE_WORDS)
        if len(self._sorted) and len(runs):
            place = np.minimum(np.searchsorted(self._sorted, runs), len(self._sorted) - 1)
            self._seen[place[self._sorted[place] == runs]] = True

    def result(self) -> Overlap:
        """Return what was found so far."""
        hit = self._seen[np.searchsorted(self._sorted, self._sequences)] if len(self._sequences) else np.empty(0, bool)
        found = np.bincount(self._owner, weights=hit, minlength=len(self._wholes))
        total = np.bincount(self._owner, minlength=len(self._wholes))
        equal = np.array([number in self._equal for number in self._wholes], dtype=bool)
        contained = equal | ((total > 0) & (found >= CONTAINED * np.maximum(total, 1)))
        share = float(hit.mean()) if len(hit) else 0.0
        return Overlap(len(self._wholes), int(equal.sum()), int(contained.sum()), share)


def overlaps(splits: dict[str, Iterable[str]], train: Iterable[str]) -> dict[str, Overlap]:
    """Return the overlap with `train` of each of `splits`."""
    probes = {name: Probe(texts) for name, texts in splits.items()}
    for text in train:
        words = word_hashes(text)
        for probe in probes.values():
            probe.look(words)
    return {name: probe.result() for name, probe in probes.items()}


def _until(documents: Iterator[Hashes], most: int) -> Iterator[Hashes]:
    total = 0
    for words in documents:
        yield words
        total += len(words)
        if total >= most:
            return
