"""What defines a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.contract import Input, StageConfig

SPECIAL_TOKENS = ("<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
"""Control tokens, ids 0 to 5: document border (start and end), padding, and the marks of a chat."""

MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
"""Every byte and every special token: with these alone any text can be written."""


class Config(StageConfig):
    """Byte-level byte-pair encoding (BPE): start from the 256 bytes, then merge the most frequent pair, again and again."""

    produces: ClassVar[str] = "tokenizer"
    inputs: ClassVar[Mapping[str, Input]] = {"corpus": Input(kinds=("corpus",), help="texts; the train split is learned from")}

    vocab_size: int = 4096
    """Tokens in all: 256 bytes, 6 special tokens, the rest are merges. 4,096 to 16,384 suit models below 30M parameters."""

    min_frequency: int = Field(default=2, ge=1)
    """Times that a pair must occur in the train split to be merged."""

    pretokenizer: Literal["gpt4-1digit", "gpt4-2digits", "gpt4-3digits", "gpt2"] = "gpt4-2digits"
    """Where text is cut before pairs are counted, so that no token spans two words. gpt4: words with the blank before
    them, numbers in groups of that many digits, punctuation, line ends. gpt2: the older rule, numbers whole."""

    max_token_bytes: int = Field(default=48, ge=2)
    """Bytes of the longest token, so that ruled lines and long repetitions do not fill the vocabulary."""

    max_train_bytes: int = Field(default=1_000_000_000, ge=1)
    """UTF-8 bytes to learn from; of a larger train split every k-th document is taken. Bounds memory and time."""

    max_report_bytes: int = Field(default=20_000_000, ge=1)
    """UTF-8 bytes per split on which the report's figures stand; of a larger split every k-th document is taken."""

    @field_validator("vocab_size")
    @classmethod
    def _can_hold_every_byte(cls, value: int) -> int:
        if value < MIN_VOCAB_SIZE:
            raise ValueError(
                f"must be at least {MIN_VOCAB_SIZE} (256 bytes + {len(SPECIAL_TOKENS)} special tokens); more, to hold merges"
            )
        return value
