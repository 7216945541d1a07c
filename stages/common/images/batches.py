"""Which images a step of training sees, and how many of them a process does.

Legend: N images, B images in one step over all processes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StageError


class Batches:
    """The epochs' permutations one after the other, cut into batches; any step's without those before it.

    Args:
        num_images: N.
        batch_size: B; larger than N, a batch holds images several times.
        seed: of the permutations.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int) -> None:
        self._num_images, self._batch_size, self._seed = num_images, batch_size, seed
        self._last: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> Tensor:
        """Return the indices of the images of a step, int64 (B,); 0 is the first step."""
        position, stop, parts = step * self._batch_size, (step + 1) * self._batch_size, []
        while position < stop:
            epoch, place = divmod(position, self._num_images)
            parts.append(self._permutation(epoch)[place : place + stop - position])
            position += len(parts[-1])
        return torch.from_numpy(np.concatenate(parts))

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._last is None or self._last[0] != epoch:
            self._last = (epoch, np.random.default_rng([self._seed, epoch]).permutation(self._num_images))
        return self._last[1]


def rows_of_process(batch_size: int, num_processes: int) -> int:
    """Return how many of the B images each process takes.

    Raises:
        StageError: they cannot be shared out evenly.
    """
    rows, rest = divmod(batch_size, num_processes)
    if rest:
        raise StageError(
            f"batch_size is {batch_size}: it cannot be shared out evenly to {num_processes} processes; "
            f"set a multiple of {num_processes}, or change launch.processes"
        )
    return rows
