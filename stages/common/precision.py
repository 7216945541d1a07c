"""The faster precision for a training, found by training a moment in each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from stages.common.devices import DtypeName
from stages.common.images.memory import is_out_of_memory
from stages.common.packing import Batch, Rows

PROBE_TOKENS = 2048
"""On a CPU; a GPU gets a whole micro-batch, which is what keeps it busy."""
MOST_SECONDS = 2.0
AUTOCAST: dict[DtypeName, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
LEAST_GAIN = 1.1
"""bfloat16 must be faster by this factor: it is less exact."""
_REPEATS = 2


def faster_dtype(
    losses: Mapping[DtypeName, nn.Module], batch: Batch, *, clock: Callable[[], float] = time.perf_counter
) -> DtypeName:
    """Return the faster of float32 and bfloat16 for forward and backward passes, tried in turn for about MOST_SECONDS.

    Neither a CPU's flags nor one large product tell. Without AMX tiles bfloat16 products had 0.5 to 0.9 of float32's speed.
    With them they were much faster, and the steps of a small model, with all that is cast and not multiplied, were slower.

    Args:
        losses: of one model in each precision; called as `CausalLmLoss` is. No gradient and no random number is left.
        batch: of the training, such as `probe_batch`, on the model's device.
        clock: seconds.
    """
    seconds: dict[DtypeName, list[float]] = {name: [] for name in losses}
    begin = clock()
    # Dropout draws from a generator that a resumed run, which does not measure again, finds where it was.
    with torch.random.fork_rng():
        for _ in range(1 + _REPEATS):  # the first pass warms up
            for name, loss in losses.items():
                seconds[name].append(_seconds_of_pass(loss, batch, clock))
            if clock() - begin > MOST_SECONDS:
                break
    for loss in losses.values():
        loss.zero_grad(set_to_none=True)
    best = {name: min(found[1:] or found) for name, found in seconds.items()}
    return "bfloat16" if best["bfloat16"] * LEAST_GAIN < best["float32"] else "float32"


def probe_batch(rows: Rows, device: torch.device, *, micro_batch_size: int) -> Batch:
    """Return the first rows of a training: a micro-batch, cut on a CPU to about PROBE_TOKENS tokens."""
    first = rows.batch([0])
    num = micro_batch_size if device.type == "cuda" else min(micro_batch_size, PROBE_TOKENS // first.input_ids.numel())
    return (rows.batch(range(num)) if num > 1 else first).to(device)


def _seconds_of_pass(loss: nn.Module, batch: Batch, clock: Callable[[], float]) -> float:
    on_gpu = batch.input_ids.is_cuda
    start = clock()
    try:
        loss(batch.input_ids, batch.labels, batch.position_ids, 1 / batch.labels.numel()).backward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return float("inf")  # the other one may fit; if not, the training says which batch to take
    if on_gpu:
        torch.cuda.synchronize(batch.input_ids.device)
    return clock() - start
