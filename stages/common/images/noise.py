"""Randomness of a training step that does not depend on the number of processes.

Every draw is made for the global batch and cut to the rows of this process: 2 processes of 64 images see the very noise
that 1 process of 128 sees. A step's generator is seeded by (seed, step), so a resumed run needs no saved state of it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class BatchNoise:
    """Draws for the rows `first` to `first + num_rows` out of a batch of `global_rows` images."""

    def __init__(self, generator: torch.Generator, *, first: int, num_rows: int, global_rows: int, device: torch.device) -> None:
        self._generator, self._device = generator, device
        self._rows, self._global_rows = slice(first, first + num_rows), global_rows

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal values, float32 (B, *shape)."""
        drawn = torch.randn(self._global_rows, *shape, generator=self._generator)
        return drawn[self._rows].to(self._device)

    def uniform(self, *shape: int) -> Tensor:
        """Return values from U[0, 1), float32 (B, *shape)."""
        drawn = torch.rand(self._global_rows, *shape, generator=self._generator)
        return drawn[self._rows].to(self._device)


def seeded_generator(*seeds: int) -> torch.Generator:
    """Return a CPU generator whose stream is a pure function of all of `seeds`."""
    words = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def whole_batch(num_rows: int, *seeds: int) -> BatchNoise:
    """Return the noise of one process that holds the whole batch, on the CPU (tests)."""
    generator = seeded_generator(*seeds)
    return BatchNoise(generator, first=0, num_rows=num_rows, global_rows=num_rows, device=torch.device("cpu"))
