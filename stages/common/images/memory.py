"""Out of memory, told as a size that fits: the batch is halved until one goes through, and the error names it.

PyTorch's own message names the bytes that were asked for, which say nothing about what to set.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from pipeline.errors import StageError

T = TypeVar("T")


def within_memory(work: Callable[[], T], *, sizes: Sequence[int], attempt: Callable[[int], None]) -> T:
    """Return what `work` returns.

    Args:
        work: takes the batch as configured.
        sizes: the batch as configured, then smaller ones to try, falling.
        attempt: needs as much memory as `work` with a batch of a given size, and changes nothing.

    Raises:
        StageError: memory ran out; names the largest of `sizes` that was tried and fits.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0]
    # Outside of `except`: the error is gone by now, and with it the frames that held the activations.
    gc.collect()
    fits = next((size for size in sizes[1:] if _goes_through(attempt, size)), None)
    advice = "not even the smallest batch fits: choose a smaller model or smaller images"
    if fits is not None:
        advice = f"{fits} was tried and fits: set batch_size to {fits} or less, or share the batch out to more devices"
    raise StageError(f"out of memory with batch_size {sizes[0]} ({reason}); {advice}")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory could not be had: GPU, CPU (a plain RuntimeError that says so) or Python itself."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _goes_through(attempt: Callable[[int], None], size: int) -> bool:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        attempt(size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
