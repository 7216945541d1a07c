"""What fine-tuning changed: bits per byte before and after on the same documents, and samples side by side.

Before means the adapter switched off, which is the base exactly; both are measured by one loaded model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from pipeline.artifact import Artifact
from pipeline.contract import Context
from stages.common.causal_lm import max_positions
from stages.common.documents import Documents
from stages.common.encoding import boundary_ids, encode_texts
from stages.common.generation import generate_texts
from stages.common.scoring import Scores, score_documents
from stages.common.statistics import paired_ratio_interval, ratio_interval
from stages.text.finetune.config import Config
from stages.text.finetune.data import documents_of

TEMPERATURE, TOP_K = 0.8, 50
"""Of the samples in the report."""


@dataclass(frozen=True)
class Comparison:
    """One corpus, scored by the base and by the fine-tuned model.

    Attributes:
        domain: "new" or "old".
        before, after: negative log-likelihood in bits of each document, float64 (documents,).
        num_bytes: UTF-8 bytes of each document, int64 (documents,).
        interval: 95 % bootstrap interval of the relative change, paired by document.
        before_interval, after_interval: 95 % bootstrap intervals of the bits per byte.
    """

    domain: str
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    num_bytes: NDArray[np.int64]
    interval: tuple[float, float]
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]

    @classmethod
    def of(cls, domain: str, before: Scores, after: Scores, num_bytes: NDArray[np.int64], *, seed: int) -> Comparison:
        """Compare two scores of the same documents."""
        old, new = before.nll_nats / math.log(2), after.nll_nats / math.log(2)
        return cls(
            domain,
            old,
            new,
            num_bytes,
            interval=paired_ratio_interval(old, new, old, seed=seed),
            before_interval=ratio_interval(old, num_bytes, seed=seed),
            after_interval=ratio_interval(new, num_bytes, seed=seed),
        )

    @property
    def bits_before(self) -> float:
        """Bits per byte of the base."""
        return float(self.before.sum() / self.num_bytes.sum())

    @property
    def bits_after(self) -> float:
        """Bits per byte of the fine-tuned model."""
        return float(self.after.sum() / self.num_bytes.sum())

    @property
    def change(self) -> float:
        """Relative change of the bits per byte; negative is better."""
        return self.bits_after / self.bits_before - 1

    @property
    def is_separable(self) -> bool:
        """Whether the interval of the change leaves out zero; one document can show nothing."""
        low, high = self.interval
        return len(self.num_bytes) > 1 and not low <= 0 <= high

    def sentence(self) -> str:
        """Say what happened in words."""
        low, high = self.interval
        name = {"new": "the new text", "old": "the base's own text"}[self.domain]
        if not self.is_separable:
            return (
                f"On {name} a change is not separable from zero: {self.change:+.1%}, 95 % interval {low:+.1%} to {high:+.1%} "
                f"over {len(self.num_bytes)} documents."
            )
        if self.domain == "new":
            verb = "falls" if self.change < 0 else "rises"
        else:
            verb = "falls, so nothing was forgotten," if self.change < 0 else "rises (forgetting)"
        return f"On {name} the cost of a byte {verb} by {abs(self.change):.1%} (95 % interval {low:+.1%} to {high:+.1%})."


@dataclass(frozen=True)
class Sample:
    """One prompt, continued by both models with the same random numbers."""

    prompt: str
    base: str
    finetuned: str


class Evaluator:
    """Scores and samples with a model whose adapter can be switched off."""

    def __init__(
        self, *, context: Context, config: Config, model: PeftModel, tokenizer: PreTrainedTokenizerBase, context_length: int
    ) -> None:
        self.context, self.config, self.model, self.tokenizer = context, config, model, tokenizer
        self.context_length = context_length
        self.validation = documents_of(
            context.input("corpus"), "validation", tokenizer, seed=config.seed, max_documents=config.num_validation_documents
        )

    def during_training(self, step: int) -> None:
        """Log the bits per byte on some validation documents; the main process alone works."""
        if self.context.is_main:
            score = self._score(self.validation, lambda done, total: self.context.progress(done, total, unit="validation window"))
            self.context.log(step, validation_bits_per_byte=score.bits_per_byte(self.validation.num_bytes))

    def compare(self, domain: str, corpus: Artifact) -> Comparison:
        """Score the test split of `corpus` before and after."""
        documents = documents_of(corpus, "test", self.tokenizer, seed=self.config.seed, max_tokens=self.config.max_test_tokens)

        def show(done: int, total: int) -> None:
            self.context.progress(done, total, unit=f"window of the {domain} text")
            self.context.check_stop()  # the training is saved

        after = self._score(documents, show)
        with self.model.disable_adapter():
            before = self._score(documents, show)
        return Comparison.of(domain, before, after, documents.num_bytes, seed=self.config.seed)

    def compare_all(self) -> list[Comparison]:
        """Compare on the new text, and on the old one where the recipe gives it."""
        old = [self.compare("old", corpus) for corpus in self.context.inputs("old_corpus")]
        return [self.compare("new", self.context.input("corpus")), *old]

    def samples(self) -> list[Sample]:
        """Continue every prompt with and without the adapter."""
        self.context.phase("writing samples")
        finetuned = self._generate()
        with self.model.disable_adapter():
            base = self._generate()
        return [Sample(*row) for row in zip(self.config.prompts, base, finetuned, strict=True)]

    def _score(self, documents: Documents, on_progress: Callable[[int, int], None]) -> Scores:
        bos_id, eos_id = boundary_ids(self.tokenizer)
        return score_documents(
            self.model,
            documents.tokens,
            bos_id=bos_id,
            eos_id=eos_id,
            context_length=self.context_length,
            batch_size=max(1, 4096 // self.context_length),
            on_progress=on_progress,
        )

    def _generate(self) -> list[str]:
        room = (max_positions(self.model) or self.context_length) - 1
        room -= max(len(tokens) for tokens in encode_texts(self.tokenizer, self.config.prompts))
        return generate_texts(
            self.model,
            self.tokenizer,
            self.config.prompts,
            seed=self.config.seed,
            max_new_tokens=min(self.config.sample_tokens, max(1, room)),
            temperature=TEMPERATURE,
            top_k=TOP_K,
        )
