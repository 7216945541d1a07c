"""What a general compressor needs for a text, in bits per byte: the figure that a language model has to beat."""

from __future__ import annotations

import lzma
from collections.abc import Iterable

XZ_BYTES = 16 << 20
"""xz sees at most this much of a split; more would cost a minute and change the third digit."""


def xz_bits_per_byte(texts: Iterable[str], *, most_bytes: int = XZ_BYTES) -> float:
    """Return the size of `texts` after `xz -9`, in bits for each of their bytes.

    The texts follow one another as one stream with nothing between them: what ends a document is left out, as in the bits
    per byte of a model. Of a longer text the first `most_bytes` count.
    """
    content = bytearray()
    for text in texts:
        content += text.encode()
        if len(content) >= most_bytes:
            break
    del content[most_bytes:]
    # A dictionary above the size of the data changes nothing but the memory that the compressor takes.
    dictionary = min(64 << 20, max(4096, 1 << len(content).bit_length()))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary}]
    return 8 * len(lzma.compress(bytes(content), format=lzma.FORMAT_XZ, filters=filters)) / max(1, len(content))
