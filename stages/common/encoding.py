"""Text to token ids and back to bytes, without the surprises of a tokenizer's convenience methods.

Data is data: a document that contains the characters `<|endoftext|>` must not gain a control token. `tokenizers` can
split special tokens as text (`encode_special_tokens`), and everything here uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

CHARACTERS_AT_ONCE = 2**21
"""Text per call into `tokenizers`: enough for its threads; its answers take about 20 times that in bytes, then go."""


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text; nothing is added, cut or padded, special tokens are encoded as plain text.

    Raises:
        DataError: a text is not a string, or holds a lone surrogate; the message names its index.
    """
    backend: Tokenizer = tokenizer.backend_tokenizer
    rows: list[list[int]] = []
    with _plain(backend):
        for start, stop in _batches(texts):
            batch = list(texts[start:stop])
            try:
                encodings = backend.encode_batch_fast(batch, add_special_tokens=False)
            except (TypeError, UnicodeEncodeError):
                raise _explain(batch, start) from None
            rows.extend(encoding.ids for encoding in encodings)
    return rows


def count_bytes(texts: Sequence[str]) -> np.ndarray:
    """Return the length of each text in UTF-8 bytes, int64 [len(texts)]: the denominator of bits per byte."""
    return np.fromiter((len(text.encode()) for text in texts), dtype=np.int64, count=len(texts))


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of all special (control) tokens."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {index for index, token in added.items() if token.special} | set(tokenizer.all_special_ids)


def boundary_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids that open and close a document; a tokenizer without a start token opens with its end token.

    Raises:
        DataError: the tokenizer has no end token, so a model could never learn to stop.
    """
    eos_id = tokenizer.eos_token_id
    if eos_id is None:
        raise DataError("the tokenizer has no end token (eos_token); train one with stages.text.tokenizer or set it")
    bos_id = tokenizer.bos_token_id
    return (eos_id if bos_id is None else bos_id), eos_id


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """Return the bytes that each id of a byte-level tokenizer stands for; special tokens stand for no bytes.

    Raises:
        DataError: a token is not written in the byte-level alphabet (the tokenizer is of another kind).
    """
    special = special_ids(tokenizer)
    alphabet = byte_alphabet()
    rows = []
    for index, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        try:
            rows.append(b"" if index in special else bytes(alphabet[character] for character in token))
        except KeyError:
            raise DataError(f"token {index} ({token!r}) is not byte-level; a byte-level BPE tokenizer is needed") from None
    return rows


def byte_alphabet() -> dict[str, int]:
    """Return the printable character that stands for each byte in a byte-level vocabulary -> that byte.

    GPT-2's table: printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and following.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + position): byte for position, byte in enumerate(shifted)}


@contextmanager
def _plain(backend: Tokenizer) -> Iterator[None]:
    # A tokenizer remembers the padding, the truncation and the special-token mode of its last call; put them back.
    special, padding, truncation = backend.encode_special_tokens, backend.padding, backend.truncation
    backend.encode_special_tokens = True
    backend.no_padding()
    backend.no_truncation()
    try:
        yield
    finally:
        backend.encode_special_tokens = special
        if padding is not None:
            backend.enable_padding(**padding)
        if truncation is not None:
            backend.enable_truncation(**truncation)


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start, size = 0, 0
    for index, text in enumerate(texts):
        length = len(text) if isinstance(text, str) else 0
        if index > start and size + length > CHARACTERS_AT_ONCE:
            yield start, index
            start, size = index, 0
        size += length
    if start < len(texts):
        yield start, len(texts)


def _explain(batch: list[str], start: int) -> DataError:
    for index, text in enumerate(batch, start):
        if not isinstance(text, str):
            return DataError(f"text {index} is {type(text).__name__}, not a string; repair the corpus")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(text[error.start]):04X}"
            return DataError(f"text {index} has a lone surrogate {code} at character {error.start}, which no UTF-8 holds")
    return DataError(f"texts {start} to {start + len(batch) - 1} cannot be encoded")
