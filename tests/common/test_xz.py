"""What xz needs for a text is the size of one stream over its bytes."""

from __future__ import annotations

import lzma

import pytest

from stages.common.xz import xz_bits_per_byte


def test_xz_is_the_size_of_the_compressed_text() -> None:
    texts = ["héllo " * 50, "world " * 50]
    raw = "".join(texts).encode()
    assert xz_bits_per_byte(texts) == pytest.approx(8 * len(lzma.compress(raw, preset=9)) / len(raw))


def test_of_a_long_text_the_beginning_counts() -> None:
    texts = [f"number {n} of many, " for n in range(300)]
    beginning = "".join(texts).encode()[:1000].decode()
    assert xz_bits_per_byte(texts, most_bytes=1000) == xz_bits_per_byte([beginning])


def test_nothing_is_no_division_by_zero() -> None:
    assert xz_bits_per_byte([]) > 0
