"""The judge of both sides: mean loss over contiguous rows of a token stream; needs PyTorch and NumPy only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CONTEXT_LENGTH = 64


def stream_loss(logits_of: Callable[[Tensor], Tensor], stream: Any) -> float:
    """Return the mean loss (nats/token) over contiguous rows of CONTEXT_LENGTH tokens of `stream`, int64 (tokens,)."""
    count = (len(stream) - 1) // CONTEXT_LENGTH
    tokens = torch.from_numpy(stream[: count * CONTEXT_LENGTH + 1])
    inputs, labels = tokens[:-1].view(count, -1), tokens[1:].view(count, -1)
    total = 0.0
    with torch.no_grad():
        for at in range(0, count, 256):
            logits = logits_of(inputs[at : at + 256]).float().flatten(0, 1)
            total += float(nn.functional.cross_entropy(logits, labels[at : at + 256].flatten(), reduction="sum"))
    return total / (count * CONTEXT_LENGTH)
