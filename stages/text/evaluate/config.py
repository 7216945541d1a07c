"""What defines an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.contract import Input, StageConfig


class Config(StageConfig):
    """Any causal language model on any corpus: bits per byte, perplexity by position, samples, repetition, novelty."""

    produces: ClassVar[str] = "evaluation"
    inputs: ClassVar[Mapping[str, Input]] = {
        "model": Input(kinds=("causal_lm",), help="the model; of a fine-tuned one its merged weights"),
        "corpus": Input(kinds=("corpus",), help="texts to predict, and whose beginnings are the prompts"),
        "train": Input(
            kinds=("corpus",),
            help="what the model was trained on, for novelty and for test texts that it has seen",
            optional=True,
            many=True,
        ),
    }

    splits: list[Literal["validation", "test"]] = Field(default=["validation", "test"])
    """Splits to measure bits per byte on; samples and novelty use the last one named."""

    max_documents: int | None = Field(default=2000, ge=1)
    """Documents per split, taken at even distances; null for all."""

    context_length: int | None = Field(default=None, ge=1)
    """Tokens that the model sees at once; null for as many as it was built for."""

    batch_size: int = Field(default=16, ge=1)
    """Windows per forward pass; changes speed and memory, and the figures by rounding only, which is checked."""

    num_samples: int = Field(default=32, ge=0)
    """Texts to generate, each from the beginning of one document."""

    prompt_words: int = Field(default=8, ge=1)
    """Words of a document that the model is given."""

    max_new_tokens: int = Field(default=96, ge=1)
    """Tokens to generate after the prompt; fewer where the model's positions end."""

    temperature: float = Field(default=0.8, ge=0)
    """Divides the logits: 0 takes the likeliest token, 1 draws from the model as it is."""

    top_k: int | None = Field(default=50, ge=1)
    """Draw among this many likeliest tokens; null for all."""

    seed: int = 0
    """Of the samples and of the bootstrap."""

    max_contaminated_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the test documents that the training texts may hold (half of their 13-word runs) before this is an error."""

    logit_tolerance: float = Field(default=1e-3, gt=0)
    """Largest difference between a logit computed alone and in a padded batch, before this is an error."""

    bits_per_byte_tolerance: float = Field(default=1e-4, gt=0)
    """Largest difference in bits per byte between batch size 1 and `batch_size`, before this is an error."""

    @field_validator("splits")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if not value or len(set(value)) != len(value):
            raise ValueError("must name at least one split, each once")
        return value
