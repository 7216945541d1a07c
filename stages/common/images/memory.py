"""Memory of a training: how much its steps take, and what fits where it runs out.

Out of memory is told as a size that fits: the batch is halved until one goes through, and the error names it. PyTorch's own
message names the bytes that were asked for, which say nothing about what to set.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from pipeline.errors import StageError

T = TypeVar("T")

_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""Words of a RuntimeError: of the CPU's allocator, and of what CUDA's libraries allocate themselves."""

_STATUS = Path("/proc/self/status")


class TrainingMemory:
    """The most memory that the steps of a training take: weights, optimizer, averages, images and what a step computes.

    On a CPU what the process held before (libraries, mostly) is taken off; on a GPU it is what PyTorch allocated. Make it
    before the networks. What is done between steps, such as drawing samples, is left out (`paused`).
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu, self._device = device.type == "cuda", device
        self._before = 0 if self._on_gpu else _status_bytes("VmRSS")
        self._peak = self._floor = 0
        self._was_paused = False

    def start(self) -> None:
        """Leave out what was done so far. On a CPU its peak stays where it is, and only what rises above it is counted."""
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._floor = _status_bytes("VmHWM")

    @property
    def peak_gib(self) -> float:
        """The most so far, GiB."""
        self._peak = max(self._peak, self._now())
        return self._peak / 2**30

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done here."""
        self._peak, self._was_paused = max(self._peak, self._now()), True
        yield
        self.start()

    def _now(self) -> int:
        if self._on_gpu:
            return torch.cuda.max_memory_allocated(self._device)
        highest = _status_bytes("VmHWM")
        if highest <= self._floor:  # the steps stay below what was needed otherwise: all that is known is what they hold now
            highest = self._before if self._was_paused else _status_bytes("VmRSS")
        return max(0, highest - self._before)


def _status_bytes(key: str) -> int:
    """Return a figure of this process, such as `VmRSS` (in memory now) or `VmHWM` (the most so far), in bytes (Linux)."""
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


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
        reason = reason_of(error)
    # Outside of `except`: the error is gone by now, and with it the frames that held the activations.
    fits = next((size for size in sizes[1:] if _goes_through(attempt, size)), None)
    advice = "not even the smallest batch fits: choose a smaller model or smaller images"
    if fits is not None:
        advice = f"{fits} was tried and fits: set batch_size to {fits} or less, or share the batch out to more devices"
    raise StageError(f"out of memory with batch_size {sizes[0]} ({reason}); {advice}")


def halvings(batch_size: int, num_processes: int) -> list[int]:
    """Return `batch_size` and what it is when halved again and again, as far as every process has an image."""
    sizes = [batch_size]
    while sizes[-1] // 2 >= num_processes:
        sizes.append(sizes[-1] // 2 // num_processes * num_processes)
    return sizes


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory could not be had: GPU, CPU (a plain RuntimeError that says so) or Python itself."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error says, or its name where it says nothing, as Python's MemoryError mostly does."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def free_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _goes_through(attempt: Callable[[int], None], size: int) -> bool:
    free_memory()
    try:
        attempt(size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
