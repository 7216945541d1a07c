"""Words and word sequences as 64-bit numbers: the common ground of near-duplicate search and of the overlap gate."""

from __future__ import annotations

import re
from hashlib import blake2b
from zlib import crc32

import numpy as np

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]

# Scripts without spaces (Thai, kana, Han, Hangul): each character counts as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")
_ASCII_WORD = re.compile(rb"\w+")
_BASE = 0x9E3779B97F4A7C15
"""Odd multiplier of the polynomial hash (the 64-bit golden ratio)."""


def word_hashes(text: str) -> Hashes:
    """Return one number per word, case and punctuation ignored; shape (words,)."""
    lowered = text.lower()
    if lowered.isascii():
        words = _ASCII_WORD.findall(lowered.encode())
    else:
        words = [word.encode("utf-8", "surrogatepass") for word in _WORD.findall(lowered)]
    return mix(np.fromiter(map(crc32, words), dtype=np.uint64, count=len(words)))


def mix(values: Hashes) -> Hashes:
    """Scatter numbers over all 64 bits (the finaliser of splitmix64; Steele, Lea and Flood, 2014)."""
    x = values + np.uint64(_BASE)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sequences(words: Hashes, length: int) -> Hashes:
    """Return one number per run of `length` words; shape (max(0, words - length + 1),)."""
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    for k in range(length):
        total = total * np.uint64(_BASE) + words[k : k + count]
    return mix(total)


def whole(words: Hashes) -> int:
    """Return one number for the whole sequence of words; 0 when there are none."""
    return int.from_bytes(blake2b(words.tobytes(), digest_size=8).digest(), "little") if len(words) else 0
