"""What simpler models need for the same test text, in bits: a unigram and a bigram model of the tokens.

Both exclude the end of documents, as the headline of the model does, and are trained on the training split.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stages.common.token_store import TokenStore

MOST_TOKENS = 50_000_000
"""Training tokens that the token models count at most; the report states how many were counted."""


def unigram_bits(train: TokenStore, test: TokenStore, vocab_size: int) -> float:
    """Return the bits that a unigram model needs for all tokens of `test`: log2 of 1/p(b), p with one added count each."""
    return float(-np.log2(_unigram(train, vocab_size))[test.tokens].sum())


def bigram_bits(train: TokenStore, test: TokenStore, vocab_size: int, *, bos_id: int) -> float:
    """Return the bits that a bigram model needs for all tokens of `test`; the first of a document follows `bos_id`.

    Witten-Bell smoothing: p(b|a) = (c(ab) + t(a)·p(b)) / (c(a) + t(a)), where t(a) is the number of different ids seen
    after a (Witten and Bell 1991; Chen and Goodman 1999, section 2.5).
    """
    seen, counts = np.unique(_pairs(train, vocab_size, bos_id), return_counts=True)
    before = seen // vocab_size
    followers = np.bincount(before, minlength=vocab_size).astype(np.float64)
    totals = np.bincount(before, weights=counts, minlength=vocab_size)
    pairs = _pairs(test, vocab_size, bos_id)
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


def _pairs(store: TokenStore, vocab_size: int, bos_id: int) -> NDArray[np.int64]:
    """Return a·V + b for every token b and the id a before it, shape (tokens,)."""
    tokens = store.tokens[:MOST_TOKENS].astype(np.int64)
    before = np.empty_like(tokens)
    before[1:] = tokens[:-1]
    starts = store.offsets[:-1][np.diff(store.offsets) > 0]
    before[starts[starts < len(tokens)]] = bos_id
    return before * vocab_size + tokens
