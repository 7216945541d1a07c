"""Scores and samples, during training and at its end, shared out over the processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.contract import Context
from stages.common import devices, sharding
from stages.common.documents import Documents
from stages.common.generation import generate_texts
from stages.common.scoring import score_documents
from stages.common.statistics import ratio_interval
from stages.text.pretrain.config import Config


@dataclass(frozen=True)
class Score:
    """How well a model predicts documents.

    Attributes:
        nll_nats: of the content tokens of each document, float64 (documents,).
        num_tokens: content tokens of each document.
        num_bytes: UTF-8 bytes of each document.
    """

    nll_nats: NDArray[np.float64]
    num_tokens: NDArray[np.int64]
    num_bytes: NDArray[np.int64]

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for one byte of text, end tokens excluded."""
        return float(self.nll_nats.sum() / math.log(2) / self.num_bytes.sum())

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood of a content token."""
        return float(self.nll_nats.sum() / self.num_tokens.sum())

    def first(self, count: int) -> Score:
        """Return the score of the first `count` documents."""
        return Score(self.nll_nats[:count], self.num_tokens[:count], self.num_bytes[:count])

    def interval(self, seed: int) -> list[float]:
        """Return the 95 % bootstrap interval of the bits per byte, over documents."""
        return [float(bound) for bound in ratio_interval(self.nll_nats / math.log(2), self.num_bytes, seed=seed)]


class Evaluator:
    """Scores documents and draws samples with the model being trained.

    `trained` is the model in training. `model` is what evaluates: the same one, or, where training shards it, a whole copy
    that waits on the CPU and takes over the weights for each evaluation.
    """

    def __init__(
        self,
        *,
        context: Context,
        accelerator: Accelerator,
        model: PreTrainedModel,
        trained: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: Config,
        boundary_ids: tuple[int, int],
        validation: Documents,
    ) -> None:
        self.context, self.accelerator, self.model, self.tokenizer = context, accelerator, model, tokenizer
        self.trained = trained
        self.config, self.validation = config, validation
        self.bos_id, self.eos_id = boundary_ids
        self.context_length = int(model.config.max_position_embeddings)

    def __call__(self, step: int) -> None:
        """Score some validation documents and log the samples, after `step` steps."""
        self.take_over()
        score = self.score(self.validation, "validation")
        samples = self.samples() if self.context.is_main else []
        self.log_loss(step, score, **{f"sample_{index}": text for index, text in enumerate(samples)})
        if self.model is not self.trained:
            self.model.cpu()

    def take_over(self) -> None:
        """Bring the weights of a sharded training into the whole copy, on the device; every process must call this."""
        if self.model is not self.trained:
            sharding.copy_weights(self.trained, into=self.model.to(self.accelerator.device))

    def log_loss(self, step: int, score: Score, **samples: str) -> None:
        """Add a point to the validation curve."""
        self.context.log(step, validation_bits_per_byte=score.bits_per_byte, validation_loss=score.nats_per_token, **samples)

    def score(self, documents: Documents, split: str) -> Score:
        """Score `documents` of `split`, every process a part of them."""
        size = len(documents.tokens)
        mine = range(self.accelerator.process_index, size, self.accelerator.num_processes)
        nll = torch.zeros(size, dtype=torch.float64, device=self.accelerator.device)
        if any(documents.tokens[index] for index in mine):
            with devices.uncompiled():
                found = self._nll([documents.tokens[index] for index in mine], split)
            nll[mine.start :: mine.step] = torch.from_numpy(found).to(nll.device)
        total = self.accelerator.reduce(nll, "sum").cpu().numpy()
        lengths = np.array([len(tokens) for tokens in documents.tokens], np.int64)
        return Score(nll_nats=total, num_tokens=lengths, num_bytes=documents.num_bytes)

    def _nll(self, documents: Sequence[list[int]], split: str) -> NDArray[np.float64]:
        """Score in float32, whatever the precision of training: figures are compared with those of other stages."""
        positions = 4_096 if self.accelerator.device.type == "cpu" else 65_536
        scores = score_documents(
            self.model,
            documents,
            bos_id=self.bos_id,
            eos_id=self.eos_id,
            context_length=self.context_length,
            batch_size=max(1, positions // self.context_length),
            on_progress=lambda done, total: self.context.progress(done, total, unit=f"{split} window"),
        )
        return scores.nll_nats

    def samples(self) -> list[str]:
        """Return prompt and continuation for each of the configured prompts; the seed is fixed, so only the model changes."""
        longest = max((len(self.tokenizer.encode(prompt)) for prompt in self.config.prompts), default=self.context_length)
        room = self.context_length - longest - 1
        if room < 1:
            return []
        self.context.phase("writing samples")
        with devices.uncompiled():
            texts = generate_texts(
                self.model,
                self.tokenizer,
                self.config.prompts,
                seed=self.config.seed,
                max_new_tokens=min(self.config.sample_tokens, room),
                temperature=0.8,
                top_k=50,
            )
        return [prompt + text for prompt, text in zip(self.config.prompts, texts, strict=True)]
