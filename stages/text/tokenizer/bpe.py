"""How BPE writes one word, step by step, and what each merge is worth: for the report."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, models

Pair = tuple[str, str]


def merges_of(tokenizer: Tokenizer) -> list[Pair]:
    """Return the merges of a BPE tokenizer in the order in which they were learned, in the byte alphabet."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def merge_steps(word: str, ranks: Mapping[Pair, int]) -> list[tuple[list[str], int | None]]:
    """Return how `word` (in the byte alphabet) is written after each merge, with that merge's rank.

    The pair learned first is merged first, at all its places. With merges th, he, the (ranks 0, 1, 2): t h e, th e, the.
    """
    parts = list(word)
    steps: list[tuple[list[str], int | None]] = [(list(parts), None)]
    while True:
        known = [pair for pair in itertools.pairwise(parts) if pair in ranks]
        if not known:
            return steps
        best = min(known, key=lambda pair: ranks[pair])
        parts = _merged(parts, best)
        steps.append((list(parts), ranks[best]))


def tokens_by_merges(tokenizer: Tokenizer, texts: Sequence[str], counts: Sequence[int]) -> list[int]:
    """Return the number of tokens of `texts` when only the first k merges are used, for each k of `counts`."""
    merges = merges_of(tokenizer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    totals = []
    for count in counts:
        shorter = Tokenizer(models.BPE(vocabulary, merges[:count]))
        shorter.pre_tokenizer = tokenizer.pre_tokenizer
        totals.append(sum(len(encoding.ids) for encoding in shorter.encode_batch_fast(list(texts), add_special_tokens=False)))
    return totals


def _merged(parts: list[str], pair: Pair) -> list[str]:
    result: list[str] = []
    position = 0
    while position < len(parts):
        if tuple(parts[position : position + 2]) == pair:
            result.append(parts[position] + parts[position + 1])
            position += 2
        else:
            result.append(parts[position])
            position += 1
    return result
