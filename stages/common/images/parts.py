"""Work on many images by parts of them, halved where memory runs out, and what is said where halving does not help.

Legend: N rows, one for each image.

Training names a batch that fits (`memory`). What comes after it (samples, likelihoods, features) has no batch to set, and a
training that is done shall not be lost to it: so parts are halved until one goes through. No number may depend on how much
memory was free. Whatever is drawn is drawn before, for all rows; and the first smaller part that fits is computed again in
two halves: where those differ by a single bit, so may they from the part that did not fit, and the stage stops instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.errors import StageError
from stages.common.images.memory import free_memory, is_out_of_memory, reason_of

Rows = Sequence[Tensor]
"""Tensors (N, ...) of one N."""


class Parts:
    """Calls work on parts of its rows, and remembers what did not fit.

    Args:
        most: rows in a part at most.
    """

    def __init__(self, most: int | float = math.inf) -> None:
        self._most = most
        self._fits: int | float = math.inf
        self._is_checked = False

    def __call__(self, work: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Return what `work` makes of `rows`, each (N, ...), as one tensor (N, ...).

        Args:
            work: takes the same rows of each tensor; a row's result depends on that row alone, and nothing is drawn.
            rows: tensors (N, ...).

        Raises:
            MemoryError: not even one row fits, or results would depend on the size of the parts.
        """
        return self.several(lambda *part: (work(*part),), *rows)[0]

    def several(self, work: Callable[..., Rows], *rows: Tensor) -> Rows:
        """Return what `work` makes of `rows`, where it makes several tensors; see `__call__`."""
        size = len(rows[0])
        parts = zip(*(tensor.split(int(min(self._most, max(1, size)))) for tensor in rows), strict=True)
        return _joined([self._part(work, part) for part in parts])

    def _part(self, work: Callable[..., Rows], part: Rows) -> Rows:
        size = len(part[0])
        if size <= self._fits:
            try:
                found = work(*part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = reason_of(error)
            else:
                self._check(work, part, found)
                return found
            # Outside of `except`: the error is gone by now, and with it the frames that held what was computed.
            free_memory()
            if size == 1:
                raise MemoryError(f"not even one image fits: {reason}")
            self._fits, self._is_checked = (size + 1) // 2, False
        return self._in_halves(work, part)

    def _in_halves(self, work: Callable[..., Rows], part: Rows) -> Rows:
        # In halves, not in parts of one size: a last part of few rows is rounded otherwise than the others.
        return _joined([self._part(work, half) for half in zip(*(tensor.tensor_split(2) for tensor in part), strict=True)])

    def _check(self, work: Callable[..., Rows], part: Rows, found: Rows) -> None:
        """Refuse a smaller part than was meant if its size can be told from its results."""
        if self._is_checked or self._fits == math.inf:
            return
        self._is_checked = True
        size = len(part[0])
        if size > 1 and all(torch.equal(a, b) for a, b in zip(found, self._in_halves(work, part), strict=True)):
            return
        raise MemoryError(f"{size} images were tried and fit, but results are rounded otherwise in parts of that size")


@contextmanager
def doing(what: str, advice: str) -> Iterator[None]:
    """Say what was being done where memory runs out, and what helps.

    Args:
        what: such as "drawing samples"; stands after "while".
        advice: names the key to lower; stands after the cause.

    Raises:
        StageError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = reason_of(error)
    else:
        return
    free_memory()
    raise StageError(f"out of memory while {what} ({reason}); {advice}, or run again where more memory is free")


def _joined(parts: Sequence[Rows]) -> Rows:
    return parts[0] if len(parts) == 1 else [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
