"""Novelty: does a model write, or does it recite what it was trained on?

`evaluate.load("stages/common/metrics/novelty.py")`. Source of the measure: McCoy et al., How Much Do Language Models Copy
From Their Training Data? (2023). The few texts in question are indexed, as sorted 64-bit hashes of their n-grams, and the
training texts stream past: memory does not grow with the training data. A hash stands for its n-gram (a false match has a
chance of about 1e-12 in a billion words); the longest copy is compared word by word and is exact.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Share of word n-grams that do not occur in the training texts, and the longest run of words copied from them."
_INPUTS = """
Args:
    predictions: generated texts (str).
    references: real texts that the model was not trained on, as a yardstick, one per prediction (str).
    training: iterable of all training texts (str); read once, as a stream.
    sizes: the n of the n-grams, by default 4 and 8 words.
Returns:
    novel_N: share of the predictions' n-grams that no training text holds; 1 is all new.
    longest_copy_words: the longest run of words that a prediction shares with one training text.
    mean_longest_copy_words: the same run, mean over the predictions.
    longest_copies: the run of each prediction, as text (list of str).
    reference_novel_N, reference_longest_copy_words, reference_mean_longest_copy_words: the same of the references.
"""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]")
_BASE = np.uint64(0x9E3779B97F4A7C15)
_ANCHOR = 4
_WORDS_AT_ONCE = 2**18


class Novelty(evaluate.Metric):
    """New n-grams and longest copies, beside those of real text."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        training: Iterable[str],
        sizes: tuple[int, ...] = (4, 8),
    ) -> dict[str, float | list[str]]:
        found = overlap([*predictions, *references], training, sizes=sizes)
        result: dict[str, float | list[str]] = {}
        for prefix, part in (("", slice(0, len(predictions))), ("reference_", slice(len(predictions), None))):
            for size in sizes:
                total = int(found.num_ngrams[size][part].sum())
                if total:
                    result[f"{prefix}novel_{size}"] = 1 - float(found.num_found[size][part].sum()) / total
            result[f"{prefix}longest_copy_words"] = int(found.longest[part].max())
            result[f"{prefix}mean_longest_copy_words"] = float(found.longest[part].mean())
        return result | {"longest_copies": found.longest_text[: len(predictions)]}


@dataclass(frozen=True)
class Overlap:
    """What some texts share with the training texts."""

    num_ngrams: dict[int, np.ndarray]
    """n -> n-grams of each text, int64 [texts]."""
    num_found: dict[int, np.ndarray]
    """n -> those of them that some training text holds, int64 [texts]."""
    longest: np.ndarray
    """Words of the longest run that one training text holds too, int64 [texts]."""
    longest_text: list[str]
    """That run, as it stands in the text."""


def overlap(texts: list[str], training: Iterable[str], *, sizes: tuple[int, ...]) -> Overlap:
    """Compare `texts` with a stream of training texts; memory grows with `texts` only."""
    index = _Index(texts, sizes)
    for words in _runs(training, index.vocabulary):
        index.feed(words)
    return index.result(texts, sizes)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return where the words of `text` begin and end, in characters."""
    return [match.span() for match in _WORD.finditer(text)]


def _runs(training: Iterable[str], vocabulary: dict[str, int]) -> Iterator[np.ndarray]:
    # Words as numbers of the index's own vocabulary; 0 is any other word, and stands between two documents.
    batch: list[int] = []
    for text in training:
        batch.extend(vocabulary.get(word, 0) for word in _WORD.findall(text))
        batch.append(0)
        if len(batch) >= _WORDS_AT_ONCE:
            yield np.array(batch)
            batch = []
    yield np.array(batch, dtype=np.int64)


class _Index:
    def __init__(self, texts: list[str], sizes: tuple[int, ...]) -> None:
        words = [_WORD.findall(text) for text in texts]
        self.vocabulary = {word: number for number, word in enumerate(dict.fromkeys(w for row in words for w in row), 1)}
        self.rows = [[self.vocabulary[word] for word in row] for row in words]
        generator = np.random.default_rng(0)
        self.values = generator.integers(1, 2**64, size=len(self.vocabulary) + 1, dtype=np.uint64)
        self.sizes = sorted({*range(1, _ANCHOR + 1), *sizes})
        self.hashes = {size: np.empty(0, dtype=np.uint64) for size in self.sizes}
        per_row = [self._hashes(np.array(row, dtype=np.int64)) for row in self.rows]
        self.hashes = {size: np.unique(np.concatenate([row[size] for row in per_row])) for size in self.sizes}
        self.places = {size: [np.searchsorted(self.hashes[size], row[size]) for row in per_row] for size in self.sizes}
        self.seen = {size: np.zeros(len(values), dtype=bool) for size, values in self.hashes.items()}
        self.longest, self.start = [0] * len(texts), [0] * len(texts)
        self.occurrences = self._occurrences()

    def feed(self, words: np.ndarray) -> None:
        known = np.concatenate([[0], np.cumsum(words != 0)])
        for size, values in self._hashes(words).items():
            candidates = np.flatnonzero(known[size:] - known[:-size] == size) if len(values) else np.empty(0, dtype=np.int64)
            place = self._lookup(size, values[candidates])
            self.seen[size][place[place >= 0]] = True
            if size == _ANCHOR:
                self._extend(words.tolist(), candidates[place >= 0], place[place >= 0])

    def result(self, texts: list[str], sizes: tuple[int, ...]) -> Overlap:
        for size in range(1, _ANCHOR):  # runs shorter than the anchor
            for row, places in enumerate(self.places[size]):
                found = np.flatnonzero(self.seen[size][places])
                if len(found) and self.longest[row] < size:
                    self.longest[row], self.start[row] = size, int(found[0])
        return Overlap(
            num_ngrams={size: np.array([len(row) for row in self.places[size]]) for size in sizes},
            num_found={size: np.array([int(self.seen[size][row].sum()) for row in self.places[size]]) for size in sizes},
            longest=np.array(self.longest, dtype=np.int64),
            longest_text=[_cut(text, self.start[row], self.longest[row]) for row, text in enumerate(texts)],
        )

    def _hashes(self, words: np.ndarray) -> dict[int, np.ndarray]:
        # Polynomial of random word values modulo 2^64, each size from the one below.
        values, result = self.values[words], {}
        current = values
        for size in range(1, max(self.sizes) + 1):
            if size > 1:
                current = current[:-1] * _BASE + values[size - 1 :] if len(values) >= size else values[:0]
            if size in self.hashes:
                result[size] = current
        return result

    def _lookup(self, size: int, values: np.ndarray) -> np.ndarray:
        # Place of each hash in the index, -1 where it is not.
        index = self.hashes[size]
        if not len(index):
            return np.full(len(values), -1)
        place = np.minimum(np.searchsorted(index, values), len(index) - 1)
        return np.where(index[place] == values, place, -1)

    def _occurrences(self) -> list[list[tuple[int, int]]]:
        # Hash of the anchor size -> where it stands: (text, position).
        lists: list[list[tuple[int, int]]] = [[] for _ in self.hashes[_ANCHOR]]
        for row, places in enumerate(self.places[_ANCHOR]):
            for position, place in enumerate(places):
                lists[place].append((row, position))
        return lists

    def _extend(self, words: list[int], positions: np.ndarray, places: np.ndarray) -> None:
        for position, place in zip(positions.tolist(), places.tolist(), strict=True):
            pairs = self.occurrences[place]
            improved = [self._compare(words, position, row, start) for row, start in pairs]
            if any(improved):
                # What is left of its text may now be too short to beat the longest: forget such places.
                self.occurrences[place] = [(r, p) for r, p in pairs if len(self.rows[r]) - p > self.longest[r]]

    def _compare(self, words: list[int], position: int, row: int, start: int) -> bool:
        # Say whether the run from here is the longest of its text so far, and keep it.
        text, best = self.rows[row], self.longest[row]
        # Such a run must also agree at the word after that length: most are out at once.
        if start + best >= len(text) or position + best >= len(words) or text[start + best] != words[position + best]:
            return False
        if start and position and text[start - 1] == words[position - 1]:
            return False  # the run began earlier and was measured there
        length = 0
        while start + length < len(text) and position + length < len(words) and text[start + length] == words[position + length]:
            length += 1
        if length > best:
            self.longest[row], self.start[row] = length, start
        return length > best


def _cut(text: str, start: int, length: int) -> str:
    spans = word_spans(text)[start : start + length]
    return text[spans[0][0] : spans[-1][1]] if spans else ""
