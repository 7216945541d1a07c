"""How well a causal LM predicts documents: the negative log-likelihood of every token, once, in nats.

A document enters as `[bos] + tokens` and is asked for `tokens + [eos]`: the first and the last token are scored, bos is
not. A document longer than the context is read in windows that overlap by half, so that (but for the first window) a
token has at least half a context before it. Bits per byte follow from `Scores.bits_per_byte`.

Shapes: input_ids and labels [N windows, L positions], hidden [T scored tokens, D], logits [T, V vocabulary].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from pipeline.errors import DataError, StageError
from stages.common.causal_lm import max_positions, vocab_rows

LOGITS_AT_ONCE = 2**24
"""Logits held at one time (64 MiB in fp32): 4096 tokens of a vocabulary of 4096, or 110 of one of 152,000."""


@dataclass(frozen=True)
class Scores:
    """What `score_documents` found; arrays are indexed by document, position arrays by place in the window."""

    nll_nats: np.ndarray
    """Negative log-likelihood of the content tokens, nats, float64 [documents]."""
    eos_nll_nats: np.ndarray
    """Negative log-likelihood of the end token, nats, float64 [documents]; not part of `nll_nats`."""
    num_tokens: np.ndarray
    """Content tokens, int64 [documents]."""
    position_nll_sum: np.ndarray
    """Sum of the content tokens' negative log-likelihood by position in the window, nats, float64 [context_length]."""
    position_count: np.ndarray
    """Content tokens by position in the window, int64 [context_length]."""
    skipped: tuple[int, ...] = field(default=())
    """Indices of the documents without a token; they are scored by nothing."""

    @property
    def nats_per_token(self) -> float:
        """Mean loss over the content tokens."""
        return float(self.nll_nats.sum() / self.num_tokens.sum())

    @property
    def nats_per_token_with_eos(self) -> float:
        """Mean loss over content and end tokens: what training minimises."""
        documents = len(self.nll_nats) - len(self.skipped)
        return float((self.nll_nats.sum() + self.eos_nll_nats.sum()) / (self.num_tokens.sum() + documents))

    def bits_per_byte(self, num_bytes: np.ndarray) -> float:
        """Return sum(nll) / ln 2 / sum(bytes); comparable across tokenizers. `num_bytes`: UTF-8 bytes by document."""
        return float(self.nll_nats.sum() / math.log(2) / num_bytes.sum())


def score_documents(
    model: PreTrainedModel,
    documents: Sequence[list[int]],
    *,
    bos_id: int,
    eos_id: int,
    context_length: int,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score every token of `documents` once, in evaluation mode, with fp32 logits; the model's mode is put back.

    Args:
        model: a causal LM, or a LoRA-wrapped one.
        documents: token ids without bos and eos.
        bos_id: the id that opens each document.
        eos_id: the id that ends each document.
        context_length: positions of a window.
        batch_size: windows per forward pass; the result does not depend on it beyond rounding.
        on_progress: called with (windows done, windows in all).

    Raises:
        DataError: `context_length` exceeds the model's positions, an id has no row in its embedding, or every document
            is empty.
        StageError: the model gave a value that is not finite.
    """
    _check(model, documents, bos_id=bos_id, eos_id=eos_id, context_length=context_length)
    windows = [w for index, tokens in enumerate(documents) if tokens for w in _windows(index, len(tokens) + 1, context_length)]
    # Like lengths together, longest first: little padding, and memory runs out at once or never.
    windows.sort(key=lambda window: window.start - window.stop)
    nll = [np.zeros(len(tokens) + 1) for tokens in documents]
    position_sum, position_count = np.zeros(context_length), np.zeros(context_length, dtype=np.int64)
    with _evaluation(model), torch.no_grad():
        score = _scorer(model)
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            values = score(*_tensors(documents, batch, bos_id, eos_id, model.device))
            for window, found in zip(batch, _split(values, batch), strict=True):
                nll[window.document][window.first : window.stop] = found
                _count(window, found, len(documents[window.document]), position_sum, position_count)
            if on_progress:
                on_progress(min(start + batch_size, len(windows)), len(windows))
    return _collect(documents, nll, position_sum, position_count)


@dataclass(frozen=True)
class _Window:
    """Targets `start` to `stop` of a document are seen, those from `first` on are scored."""

    document: int
    start: int
    first: int
    stop: int


def _windows(document: int, num_targets: int, context_length: int) -> Iterator[_Window]:
    stop = min(num_targets, context_length)
    yield _Window(document, 0, 0, stop)
    while stop < num_targets:
        first, stop = stop, min(num_targets, stop + max(1, context_length // 2))
        yield _Window(document, stop - context_length, first, stop)


def _tensors(
    documents: Sequence[list[int]], batch: list[_Window], bos_id: int, eos_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    # Right padding with eos and no mask: under causal attention nothing that is scored can see it.
    length = max(window.stop - window.start for window in batch)
    input_ids = torch.full((len(batch), length), eos_id)
    labels = torch.full((len(batch), length), -100)
    for row, window in enumerate(batch):
        stream = [bos_id, *documents[window.document], eos_id][window.start : window.stop + 1]
        input_ids[row, : len(stream) - 1] = torch.tensor(stream[:-1])
        skip = window.first - window.start
        labels[row, skip : len(stream) - 1] = torch.tensor(stream[1 + skip :])
    return input_ids.to(device), labels.to(device)


def _scorer(model: PreTrainedModel) -> Callable[[Tensor, Tensor], np.ndarray]:
    # The head over a whole batch costs N x L x V floats (5 GB at V = 152,000), so it runs over chunks of scored tokens.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    body, head = inner.base_model, inner.get_output_embeddings()
    vocab_size = int(head.weight.shape[0])

    def by_chunks(input_ids: Tensor, labels: Tensor) -> np.ndarray:
        scored = labels != -100
        hidden, targets = body(input_ids=input_ids, use_cache=False).last_hidden_state[scored], labels[scored]
        chunk = max(1, LOGITS_AT_ONCE // vocab_size)
        parts = [_nll(head(h), y) for h, y in zip(hidden.split(chunk), targets.split(chunk), strict=True)]
        return torch.cat(parts).double().cpu().numpy()

    def by_rows(input_ids: Tensor, labels: Tensor) -> np.ndarray:
        rows = max(1, LOGITS_AT_ONCE // (vocab_size * input_ids.shape[1]))
        parts = []
        for ids, targets in zip(input_ids.split(rows), labels.split(rows), strict=True):
            scored = targets != -100
            parts.append(_nll(model(input_ids=ids, use_cache=False).logits[scored], targets[scored]))
        return torch.cat(parts).double().cpu().numpy()

    return by_chunks if _head_is_last(model, body, head) else by_rows


def _head_is_last(model: PreTrainedModel, body: torch.nn.Module, head: torch.nn.Module) -> bool:
    # Some architectures scale or cap what the head gives (Gemma 2, Cohere, NanoChat), some do not feed it the last hidden
    # state. Make the head say a ramp of large values: it must come out as it went in, and the input must be the body's.
    seen: list[Tensor] = []

    def say_ramp(_module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(inputs[0])
        return torch.linspace(-64, 64, output.shape[-1], device=output.device).to(output.dtype).expand_as(output)

    probe = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    handle = head.register_forward_hook(say_ramp)
    try:
        logits = model(input_ids=probe, use_cache=False).logits
        said = head(seen[0])
    finally:
        handle.remove()
    hidden = body(input_ids=probe, use_cache=False).last_hidden_state
    return torch.equal(logits.float(), said.float()) and torch.equal(hidden, seen[0])


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), labels, reduction="none")


def _split(values: np.ndarray, batch: list[_Window]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([window.stop - window.first for window in batch])[:-1])


def _count(window: _Window, found: np.ndarray, num_tokens: int, sums: np.ndarray, counts: np.ndarray) -> None:
    content = found[: max(0, num_tokens - window.first)]  # without the end token, which is the last target
    place = window.first - window.start
    sums[place : place + len(content)] += content
    counts[place : place + len(content)] += 1


def _collect(
    documents: Sequence[list[int]], nll: list[np.ndarray], position_sum: np.ndarray, position_count: np.ndarray
) -> Scores:
    bad = [index for index, values in enumerate(nll) if not np.isfinite(values).all()]
    if bad:
        raise StageError(f"document {bad[0]} has a loss that is not finite ({len(bad)} documents in all): the model is broken")
    return Scores(
        nll_nats=np.array([values[:-1].sum() for values in nll]),
        eos_nll_nats=np.array([values[-1] for values in nll]),
        num_tokens=np.array([len(tokens) for tokens in documents], dtype=np.int64),
        position_nll_sum=position_sum,
        position_count=position_count,
        skipped=tuple(index for index, tokens in enumerate(documents) if not tokens),
    )


def _check(model: PreTrainedModel, documents: Sequence[list[int]], *, bos_id: int, eos_id: int, context_length: int) -> None:
    if not any(documents):
        raise DataError(f"none of the {len(documents)} documents has a token; there is nothing to score")
    positions, rows = max_positions(model), vocab_rows(model)
    if context_length < 1 or (positions is not None and context_length > positions):
        raise DataError(f"context_length is {context_length}: it must be from 1 to the model's {positions} positions")
    for name, value in (("bos_id", bos_id), ("eos_id", eos_id)):
        if not isinstance(value, int) or not 0 <= value < rows:
            raise DataError(f"{name} is {value}: the model's embedding has the rows 0 to {rows - 1}")
    for index, tokens in enumerate(documents):
        if tokens and (min(tokens) < 0 or max(tokens) >= rows):
            wrong = max(tokens) if max(tokens) >= rows else min(tokens)
            raise DataError(
                f"document {index} has token id {wrong}, but the model's embedding has the rows 0 to {rows - 1}; "
                "the tokenizer is not the one the model was trained with"
            )


@contextmanager
def _evaluation(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
