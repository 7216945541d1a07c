"""Running sums with the same bits every time, on a GPU too."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor


def running_sum(values: Tensor, dim: int) -> Tensor:
    """Return the sums of `values` up to and with each place of `dim`; for dimensions of tens of places, not thousands.

    On a CPU this is `torch.cumsum`. On a GPU that has no deterministic form for floats (torch.use_deterministic_algorithms),
    so the terms are added one after the other there.
    """
    if values.is_cpu:
        return values.cumsum(dim)
    return torch.stack(list(accumulate(values.unbind(dim))), dim)
