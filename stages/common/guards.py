"""Checks inside training that stop it before harm is done: isolation, finiteness, shapes.

Each guard stands for a fault that today's libraries let pass: packed documents that see each other, a NaN that is saved
into every weight with exit code 0, rows longer than the model's positions, labels that are all masked.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import Tensor, nn

from pipeline.errors import Diverged, StageError
from stages.common.packing import IGNORED, Batch

LEAK_TOLERANCE = 1e-3
"""Largest difference of logits, relative to their spread, that rounding may cause between packed and separate."""


def check_finite(step: int, *, loss: float, gradient_norm: float) -> None:
    """Stop before an update that would poison the weights.

    Raises:
        Diverged: names the step and the value that is not finite.
    """
    for name, value in (("loss", loss), ("gradient norm", gradient_norm)):
        if not math.isfinite(value):
            raise Diverged(
                f"step {step}: the {name} is {value}; stopped before the update; what was saved before is good. "
                "Lower the learning rate, or lengthen the warm-up where the stage has a key for it"
            )


def check_supervised(num_supervised: int, *, step: int) -> None:
    """Refuse a step without a single supervised token: its loss would be 0 and mean nothing."""
    if num_supervised < 1:
        raise StageError(f"step {step}: no supervised token among the labels; check the corpus and the labels")


def check_fits(*, context_length: int, max_positions: int, tokenizer_size: int, vocab_size: int) -> None:
    """Refuse rows longer than the model's positions, and a vocabulary smaller than the tokenizer's."""
    if context_length > max_positions:
        raise StageError(f"context_length is {context_length}, but the model has {max_positions} positions; shorten it")
    if tokenizer_size > vocab_size:
        raise StageError(f"the tokenizer has {tokenizer_size} ids, but the model has rows for {vocab_size}; raise vocab_size")


def check_labels(batch: Batch, *, vocab_size: int) -> None:
    """Refuse ids or labels outside the vocabulary (on a GPU they would only raise a device assert)."""
    supervised = batch.labels[batch.labels != IGNORED]
    for name, ids in (("input id", batch.input_ids), ("label", supervised)):
        if ids.numel() and not (int(ids.min()) >= 0 and int(ids.max()) < vocab_size):
            raise StageError(f"{name} {int(ids.max())} is outside the vocabulary of {vocab_size}")


@torch.no_grad()
def isolation_error(model: nn.Module, batch: Batch) -> float:
    """Return how much packed documents see of each other: max |packed − separate| logits over the spread of the logits.

    Each document of `batch` is run alone and compared with its part of the packed row.
    """
    packed = _logits(model, batch.input_ids, batch.position_ids)
    positions = batch.position_ids if batch.position_ids is not None else torch.arange(packed.shape[1]).expand(len(packed), -1)
    worst = 0.0
    for row, starts in enumerate((positions == 0).cpu()):
        bounds = [*starts.nonzero().flatten().tolist(), packed.shape[1]]
        for start, stop in itertools.pairwise(bounds):
            alone = _logits(model, batch.input_ids[row : row + 1, start:stop], None)
            worst = max(worst, float((alone - packed[row : row + 1, start:stop]).abs().max()))
    return worst / max(float(packed.std()), 1e-12)


def check_isolation(model: nn.Module, batch: Batch) -> float:
    """Prove on a copy of `model` that documents of `batch` do not see each other; return the error that was seen.

    The copy gets random values where a fresh model is all zeros, or attention would have no effect and the proof no
    meaning. That the proof can fail is shown in passing: the same rows without restarted positions must differ.

    Raises:
        StageError: a leak was found, or the probe could not have seen one.
    """
    assert batch.position_ids is not None, "isolation is only checked where documents are isolated"
    if not bool((batch.position_ids[:, 1:] == 0).any()):
        return 0.0
    probe = _randomised(model)
    error = isolation_error(probe, batch)
    if not error < LEAK_TOLERANCE:
        raise StageError(
            f"packed documents see each other (logits differ by {error:.2g} of their spread); this version of transformers "
            "does not isolate them. Set isolate_documents: false to train without isolation"
        )
    joined = _logits(probe, batch.input_ids, None)
    apart = _logits(probe, batch.input_ids, batch.position_ids)
    if not float((joined - apart).abs().max()) > 10 * LEAK_TOLERANCE * float(apart.std()):
        raise StageError("the isolation probe cannot tell packed from separate documents; set isolate_documents: false")
    return error


@torch.no_grad()
def _logits(model: nn.Module, input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
    logits: Tensor = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
    return logits.float()


def _randomised(model: nn.Module) -> nn.Module:
    probe = copy.deepcopy(model).eval().float()
    generator = torch.Generator().manual_seed(0)
    for parameter in probe.parameters():
        if parameter.ndim == 2:
            noise = torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter.shape[-1])
            parameter.data.copy_(noise)
    return probe
