"""Documents as token ids with their size in bytes: what scoring needs to tell bits per byte."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Documents:
    """Some documents of a split, to be scored.

    Attributes:
        tokens: ids of each document, without bos and eos.
        num_bytes: UTF-8 bytes of each document, int64 (documents,).
    """

    tokens: list[list[int]]
    num_bytes: NDArray[np.int64]
