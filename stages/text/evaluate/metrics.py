"""The measurements of one evaluation: prediction, invariance to the batch, contamination, what the samples are like."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from stages.common.metric_modules import load_metric
from stages.common.metrics import bits_per_byte, novelty, perplexity, repetition
from stages.common.scoring import Scores, score_documents
from stages.common.statistics import ratio_interval

CONTAMINATION_SIZE = 13
"""Words of the runs by which a document counts as seen; 13 as in Brown et al. (2020), appendix C."""


@dataclass(frozen=True)
class Prediction:
    """How well a split is predicted."""

    scores: Scores
    num_bytes: np.ndarray
    bits_per_byte: float
    interval: tuple[float, float] | None
    """95 % over documents; None for fewer than two."""
    perplexity: float
    nats_per_token: float

    @property
    def num_documents(self) -> int:
        """Documents that have a token."""
        return len(self.num_bytes) - len(self.scores.skipped)


@dataclass(frozen=True)
class Invariance:
    """How far batch size and padding move the figures."""

    logit_difference: float
    bits_per_byte_difference: float
    num_documents: int


def predict(
    model: PreTrainedModel,
    documents: list[list[int]],
    num_bytes: np.ndarray,
    *,
    boundary: tuple[int, int],
    context_length: int,
    batch_size: int,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> Prediction:
    """Score `documents` (token ids without `boundary`, the ids that open and close one)."""
    bos_id, eos_id = boundary
    scores = score_documents(
        model,
        documents,
        bos_id=bos_id,
        eos_id=eos_id,
        context_length=context_length,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    bits = scores.nll_nats / np.log(2)
    by_token = load_metric(perplexity).compute(predictions=scores.nll_nats, references=scores.num_tokens)
    return Prediction(
        scores=scores,
        num_bytes=num_bytes,
        bits_per_byte=load_metric(bits_per_byte).compute(predictions=scores.nll_nats, references=num_bytes)["bits_per_byte"],
        interval=ratio_interval(bits, num_bytes, seed=seed) if (num_bytes > 0).sum() > 1 else None,
        perplexity=by_token["perplexity"],
        nats_per_token=by_token["nats_per_token"],
    )


def batch_invariance(
    model: PreTrainedModel,
    documents: list[list[int]],
    num_bytes: np.ndarray,
    *,
    boundary: tuple[int, int],
    context_length: int,
    batch_size: int,
) -> Invariance:
    """Compare batch size 1 with a padded batch of `batch_size`: the logits themselves, and bits per byte."""
    bos_id, eos_id = boundary
    kept = [index for index, tokens in enumerate(documents) if tokens][: max(2, batch_size)]
    chosen, size = [documents[index] for index in kept], num_bytes[kept]

    def bits(rows: int) -> float:
        return score_documents(
            model, chosen, bos_id=bos_id, eos_id=eos_id, context_length=context_length, batch_size=rows
        ).bits_per_byte(size)

    return Invariance(
        logit_difference=_logit_difference(model, [[bos_id, *tokens][:context_length] for tokens in chosen[:batch_size]], eos_id),
        bits_per_byte_difference=abs(bits(1) - bits(batch_size)),
        num_documents=len(chosen),
    )


def _logit_difference(model: PreTrainedModel, rows: list[list[int]], pad_id: int) -> float:
    longest = max(len(row) for row in rows)
    padded = torch.tensor([row + [pad_id] * (longest - len(row)) for row in rows], device=model.device)
    largest = 0.0
    with torch.no_grad():
        together = model(input_ids=padded, use_cache=False).logits
        for index, row in enumerate(rows):
            alone = model(input_ids=padded[index : index + 1, : len(row)], use_cache=False).logits[0]
            largest = max(largest, float((together[index, : len(row)].float() - alone.float()).abs().max()))
    return largest


def contaminated(texts: list[str], training: Iterable[str]) -> np.ndarray:
    """Return which texts the training texts hold: half of their runs of 13 words or more; bool [texts].

    A text shorter than 13 words has no such run and is never counted.
    """
    found = novelty.overlap(texts, training, sizes=(CONTAMINATION_SIZE,))
    total = found.num_ngrams[CONTAMINATION_SIZE]
    return (total > 0) & (2 * found.num_found[CONTAMINATION_SIZE] >= total)


def describe_texts(samples: list[str], truths: list[str]) -> tuple[dict[str, float], dict[str, float]] | None:
    """Return the repetition of the samples and of the (equally long) real texts; None when all are too short for it."""
    metric = load_metric(repetition)
    try:
        return metric.compute(predictions=samples), metric.compute(predictions=truths)
    except ValueError:
        return None


def describe_novelty(samples: list[str], truths: list[str], training: Iterable[str]) -> dict[str, float | list[str]]:
    """Return the novelty of the samples beside that of the real texts."""
    return load_metric(novelty).compute(predictions=samples, references=truths, training=training)
