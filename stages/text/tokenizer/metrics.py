"""What a tokenizer is judged by: bytes per token, exact round trips, tokens that are never used, speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from stages.common.encoding import count_bytes, encode_texts, special_ids
from stages.text.tokenizer.config import SPECIAL_TOKENS
from stages.text.tokenizer.data import batches

ROUND_TRIPS = {
    "empty": "",
    "English": "The quick brown fox doesn't jump over 13 lazy dogs.",
    "code, tabs and indentation": "def f(x):\n\treturn {'a': x ** 2}  # 0x7f\n\n\n    pass\n",
    "numbers": "3.14159 1,000,000 -40\u00b0 1e-3 2026-11-22 \u0663\u0664 \u00bd \u216b",
    "line ends CRLF, CR, LF": "one\r\ntwo\rthree\nfour\u2028five",
    "blanks": "  a   b\u00a0c\u3000d\t\te  ",
    "Chinese, Japanese, Korean": "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u3053\u3093\u306b\u3061\u306f \uc548\ub155",
    "4-byte Chinese": "\U00020bb7\U0002000b",
    "emoji with joiners and skin": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1fa\U0001f1f3",
    "right to left": "\u0634\u0643\u0631\u0627 \u05e9\u05dc\u05d5\u05dd \u200fabc\u200e",
    "Hindi and Thai": "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "composed and decomposed": "caf\u00e9 cafe\u0301 \ufb01 \u212b A\u030a",
    "zero width": "a\u200bb\ufeffc\u2060d\u00ade",
    "NUL and control characters": "a\x00b\x07\x1b[0m\x7f\x85",
    "mathematics": "\u2200x\u2208\u211d: x\u00b2 \u2265 0 \U0001d538",
    "last code point": "\U0010ffff\ufffd\ue000",
    "special tokens as text": "<|endoftext|> and <|pad|> are text here<|end|>",
}
"""Texts that tokenizers are known to change."""


@dataclass
class Measured:
    """What one pass over (a thinned) split shows."""

    num_documents: int
    num_bytes: int
    num_tokens: int
    counts: np.ndarray
    """How often each token occurs, int64 [vocabulary]."""
    seconds: float
    """Wall time of the encoding alone."""


def measure(
    tokenizer: PreTrainedTokenizerBase, dataset: Dataset, on_progress: Callable[[int, int], None] | None = None
) -> Measured:
    """Encode `dataset`; `on_progress` is called with (documents done, documents in all)."""
    result = Measured(0, 0, 0, np.zeros(len(tokenizer), dtype=np.int64), 0.0)
    for texts in batches(dataset):
        started = time.perf_counter()
        rows = encode_texts(tokenizer, texts)
        result.seconds += time.perf_counter() - started
        ids = np.fromiter((index for row in rows for index in row), dtype=np.int64)
        result.counts += np.bincount(ids, minlength=len(tokenizer))
        result.num_documents += len(texts)
        result.num_tokens += len(ids)
        result.num_bytes += int(count_bytes(texts).sum())
        if on_progress:
            on_progress(result.num_documents, len(dataset))
    return result


def round_trips(tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, int, int, bool]]:
    """Return (name, bytes, tokens, exact) for each text of ROUND_TRIPS; a control token in its ids is not exact."""
    rows = []
    for (name, text), ids in zip(ROUND_TRIPS.items(), encode_texts(tokenizer, list(ROUND_TRIPS.values())), strict=True):
        exact = tokenizer.decode(ids) == text and not special_ids(tokenizer) & set(ids)
        rows.append((name, len(text.encode()), len(ids), exact))
    return rows


def first_change(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> int | None:
    """Return the index of the first text that encoding and decoding change, None when all come back."""
    decoded = tokenizer.batch_decode(encode_texts(tokenizer, texts), clean_up_tokenization_spaces=False)
    return next((index for index, pair in enumerate(zip(texts, decoded, strict=True)) if pair[0] != pair[1]), None)


def injected_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return what the plain call `tokenizer(text)` does with each special token's text: how many control ids it gives."""
    return {token: sum(index in special_ids(tokenizer) for index in tokenizer(token).input_ids) for token in SPECIAL_TOKENS}
