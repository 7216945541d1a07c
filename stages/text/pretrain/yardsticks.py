"""What simpler models need for the same test text, in bits: a unigram and a bigram model of the tokens.

Both exclude the end of documents, as the headline of the model does, are trained on the training split (at most its first
`MOST_TOKENS` tokens), and are asked for the first documents of test, as many as the model was.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stages.common.token_store import TokenStore

MOST_TOKENS = 50_000_000
"""Training tokens that the token models count at most."""


def unigram_bits(train: TokenStore, test: TokenStore, vocab_size: int, *, num_documents: int) -> float:
    """Return the bits that a unigram model needs for the documents of `test`: log2 of 1/p(b), p with one added count each."""
    return float(-np.log2(_unigram(train, vocab_size))[test.tokens[: test.offsets[num_documents]]].sum())


def bigram_bits(train: TokenStore, test: TokenStore, vocab_size: int, *, bos_id: int, num_documents: int) -> float:
    """Return the bits that a bigram model needs for the documents of `test`; the first token of each follows `bos_id`.

    Witten-Bell smoothing: p(b|a) = (c(ab) + t(a)·p(b)) / (c(a) + t(a)), where t(a) is the number of different ids seen
    after a (Witten and Bell 1991; Chen and Goodman 1999, section 2.5).
    """
    seen, counts = np.unique(_pairs(train, vocab_size, bos_id, MOST_TOKENS), return_counts=True)
    before = seen // vocab_size
    followers = np.bincount(before, minlength=vocab_size).astype(np.float64)
    totals = np.bincount(before, weights=counts, minlength=vocab_size)
    pairs = _pairs(test, vocab_size, bos_id, int(test.offsets[num_documents]))
    place = np.minimum(np.searchsorted(seen, pairs), len(seen) - 1)
    joint = np.where(seen[place] == pairs, counts[place], 0)
    first, second = np.divmod(pairs, vocab_size)
    # An id that never had a follower backs off to the unigram model entirely.
    t, c = np.where(totals > 0, followers, 1.0)[first], totals[first]
    probability = (joint + t * _unigram(train, vocab_size)[second]) / (c + t)
    return float(-np.log2(probability).sum())


def bits_per_byte(bits: float, num_bytes: float) -> float:
    """Return `bits` over `num_bytes`, checked to be a number."""
    assert num_bytes > 0, "a test split without a byte was let through"
    assert math.isfinite(bits), "a yardstick gave zero probability to a token"
    return bits / num_bytes


def _unigram(train: TokenStore, vocab_size: int) -> NDArray[np.float64]:
    counts = np.bincount(train.tokens[:MOST_TOKENS], minlength=vocab_size) + 1.0
    return np.asarray(counts / counts.sum())


def _pairs(store: TokenStore, vocab_size: int, bos_id: int, most: int) -> NDArray[np.int64]:
    """Return a·V + b for each of the first `most` tokens b and the id a before it, shape (tokens,)."""
    tokens = store.tokens[:most].astype(np.int64)
    before = np.empty_like(tokens)
    before[1:] = tokens[:-1]
    starts = store.offsets[:-1][np.diff(store.offsets) > 0]
    before[starts[starts < len(tokens)]] = bos_id
    return before * vocab_size + tokens
