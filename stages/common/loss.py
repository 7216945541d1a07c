"""Next-token loss, computed in chunks of positions so that the logits of a whole batch never exist at once.

Legend: N positions, D hidden size, V vocabulary. The logits (N, V) are the largest tensor of a small model. Here each
chunk of them is turned into its gradient in the forward pass and dropped: memory falls from N·V to chunk·V, and the
softmax is computed once. The gradient of the summed negative log-likelihood by the logits is softmax(logits) − onehot.

The loss of a step is the sum over all supervised tokens of the step divided by their number, over accumulation steps and
processes alike. A mean of means would weigh tokens of short micro-batches more (transformers PR 34191).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from pipeline.errors import StageError
from stages.common.packing import IGNORED

_CPU_CHUNK_ELEMENTS = 2**21
"""Logits per chunk: 8 MiB in float32 stay near a CPU's cache."""

_GPU_CHUNK_ELEMENTS = 2**27
"""512 MiB in float32 on a GPU, which wants few large products."""

_LEAST_PROBABILITY = 1e-37
"""Where a probability underflows, its loss is reported as 85 nats; the gradient is exact all the same."""


class _ChunkedNll(Function):
    """Sum of negative log-likelihoods; gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, scale: float, chunk: int) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), chunk):
            part = hidden[start : start + chunk]
            target = labels[start : start + chunk, None]
            probabilities = (part @ weight.t()).float()
            torch.softmax(probabilities, 1, out=probabilities)
            total -= probabilities.gather(1, target).clamp_(min=_LEAST_PROBABILITY).log_().sum()
            if grad_hidden is None and grad_weight is None:
                continue
            grad_logits = probabilities.scatter_add_(1, target, -torch.ones_like(target, dtype=torch.float32)).to(part.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits, weight, out=grad_hidden[start : start + chunk])
            if grad_weight is not None:
                _accumulate(grad_weight, grad_logits, part)
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
        ctx.scale = scale
        return total * scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grads = [None if saved is None else saved * (grad * ctx.scale) for saved in ctx.saved_tensors]
        return grads[0], grads[1], None, None, None


def _accumulate(grad_weight: Tensor, grad_logits: Tensor, part: Tensor) -> None:
    if part.dtype == grad_weight.dtype:
        grad_weight.addmm_(grad_logits.t(), part)
    else:
        grad_weight += grad_logits.t() @ part


def nll_sum(hidden: Tensor, weight: Tensor, labels: Tensor, *, scale: float = 1.0, chunk: int | None = None) -> Tensor:
    """Return `scale` times the summed negative log-likelihood in nats of all labels that are not -100.

    Args:
        hidden: last hidden states (after the final norm), float (B, L, D).
        weight: weight of the output head, float (V, D); under autocast both are cast as a linear layer would.
        labels: id that follows each position, or -100, int64 (B, L).
        scale: factor, such as 1 / (number of supervised tokens in the global batch).
        chunk: positions per chunk; None: as many as keep a chunk of logits small.
    """
    hidden, labels = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    kept = labels != IGNORED
    if not kept.all():
        hidden, labels = hidden[kept], labels[kept]
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(device, enabled=False):
        return _ChunkedNll.apply(hidden, weight, labels, scale, chunk or chunk_positions(device, len(weight)))


def chunk_positions(device: str, vocab_size: int) -> int:
    """Return how many positions a chunk of logits has on a type of device."""
    return max(64, (_CPU_CHUNK_ELEMENTS if device == "cpu" else _GPU_CHUNK_ELEMENTS) // vocab_size)


class CausalLmLoss(nn.Module):
    """A transformers causal LM as a module that returns its loss, so that DDP or FSDP can wrap the whole.

    Under an adapter pass the model that the adapter was put into (`get_base_model()`); the head itself must be plain.
    The model is called without attention mask and without cache, which document isolation needs (`packing`).
    """

    def __init__(self, model: nn.Module, *, autocast_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        head = model.get_output_embeddings()
        if type(head) is not nn.Linear or head.bias is not None:
            raise StageError(f"the output head is a {type(head).__name__}; this loss needs a plain linear layer without bias")
        self.model = model
        self.autocast_dtype = autocast_dtype

    def forward(self, input_ids: Tensor, labels: Tensor, position_ids: Tensor | None, scale: float) -> Tensor:
        """Return `scale` times the summed negative log-likelihood (see `nll_sum`); all tensors are (B, L)."""
        dtype = self.autocast_dtype
        with torch.autocast(input_ids.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            outputs = self.model.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False)
            head = self.model.get_output_embeddings()
            return nll_sum(outputs.last_hidden_state, head.weight, labels, scale=scale)
