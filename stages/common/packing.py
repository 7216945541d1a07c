"""Documents packed into rows of one length, without padding and without leaks between documents.

A document enters as `[bos] tokens` with labels `tokens [eos]`, so the end token is supervised once. Documents follow
each other in an order drawn per epoch and are cut into rows; a document may be split over rows (counted, never lost).
Row i is a pure function of (seed, epoch, i): to resume is to remember one integer, and neither the number of processes
nor of accumulation steps can change the stream.

Isolation: on PyTorch's SDPA, transformers keeps packed documents apart exactly, if positions restart with each document
AND no attention mask is given AND no cache is used (transformers/masking_utils.py, `find_packed_sequence_indices`). An
all-ones mask or `use_cache=True` drops it silently; `guards.check_isolation` proves it before training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError
from stages.common.token_store import TokenStore

IGNORED = -100
"""Label of a position that is not supervised (Hugging Face convention)."""


@dataclass(frozen=True)
class Batch:
    """Rows ready for a causal language model; legend: B rows, L positions.

    Attributes:
        input_ids: ids, int64 (B, L).
        labels: id that follows each position, already shifted, -100 where there is none, int64 (B, L).
        position_ids: positions that restart with each document, int64 (B, L); None when documents are not isolated.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        if device.type == "cpu":
            return self
        positions = None if self.position_ids is None else self.position_ids.to(device, non_blocking=True)
        return Batch(self.input_ids.to(device, non_blocking=True), self.labels.to(device, non_blocking=True), positions)


class Rows(Protocol):
    """What training reads: an endless, index-addressed sequence of rows (or of groups of rows)."""

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return what lies at the global `indices`."""
        ...

    def num_supervised(self, indices: Sequence[int]) -> int:
        """Return how many labels count at `indices`."""
        ...

    def waste(self) -> dict[str, float]:
        """Return what the layout costs in one epoch."""
        ...


class PackedRows:
    """An endless sequence of rows, addressed by a global index: epoch = index // num_rows.

    Attributes:
        num_rows: rows in one epoch.
        num_positions: supervised positions in one epoch (tokens and one end token per document).
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        context_length: int,
        seed: int,
        bos_id: int,
        eos_id: int,
        isolate_documents: bool = True,
    ) -> None:
        """Prepare rows of `context_length` positions over `store`; raises DataError when it holds no token."""
        if context_length < 2:
            raise DataError(f"context_length is {context_length}: a row needs at least 2 positions")
        lengths = store.lengths
        self._documents = np.flatnonzero(lengths)
        if not len(self._documents):
            raise DataError("the training split holds no token; check the corpus and the tokenizer")
        self._sizes = lengths[self._documents] + 1
        self.num_positions = int(self._sizes.sum())
        self.num_rows = -(-self.num_positions // context_length)
        self.context_length = context_length
        self._store, self._seed, self._isolate = store, seed, isolate_documents
        self._bos_id, self._eos_id = bos_id, eos_id
        self._epoch = -1
        self._order: NDArray[np.int64] = self._documents
        self._ends: NDArray[np.int64] = self._sizes

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the rows at the global `indices`."""
        shape = (len(indices), self.context_length)
        input_ids, labels = np.full(shape, self._eos_id, np.int64), np.full(shape, IGNORED, np.int64)
        position_ids = np.zeros(shape, np.int64)
        for row, index in enumerate(indices):
            self._fill(index, input_ids[row], labels[row], position_ids[row])
        positions = torch.from_numpy(position_ids) if self._isolate else None
        return Batch(torch.from_numpy(input_ids), torch.from_numpy(labels), positions)

    def num_supervised(self, indices: Sequence[int]) -> int:
        """Return how many labels of the rows at `indices` count, without building the rows."""
        last = self.num_positions - (self.num_rows - 1) * self.context_length
        return sum(last if index % self.num_rows == self.num_rows - 1 else self.context_length for index in indices)

    def waste(self) -> dict[str, float]:
        """Return what packing costs in one epoch (of epoch 0): padding, and documents split over rows.

        Keys: padded_positions and padded_share, split_documents and split_share, cropped_tokens (always 0).
        """
        self._enter(0)
        padded = self.num_rows * self.context_length - self.num_positions
        first, last = (self._ends - self._sizes[self._order]) // self.context_length, (self._ends - 1) // self.context_length
        split = int((first != last).sum())
        return {
            "padded_positions": padded,
            "padded_share": padded / (self.num_rows * self.context_length),
            "split_documents": split,
            "split_share": split / len(self._documents),
            "cropped_tokens": 0,
        }

    def _enter(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._documents))
            self._ends = np.cumsum(self._sizes[self._order])
            self._epoch = epoch

    def _fill(self, index: int, input_ids: NDArray[Any], labels: NDArray[Any], position_ids: NDArray[Any]) -> None:
        epoch, row = divmod(index, self.num_rows)
        self._enter(epoch)
        start = row * self.context_length
        stop = min(start + self.context_length, self.num_positions)
        place = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            which = self._order[place]
            begin = int(self._ends[place] - self._sizes[which])
            end = min(int(self._ends[place]), stop)
            tokens = self._store.document(self._documents[which])
            here = slice(start - row * self.context_length, end - row * self.context_length)
            input_ids[here], labels[here] = document_span(
                tokens, start - begin, end - begin, bos_id=self._bos_id, eos_id=self._eos_id
            )
            position_ids[here] = np.arange(end - start)
            start, place = end, place + 1
        position_ids[stop - row * self.context_length :] = np.arange(self.context_length - (stop - row * self.context_length))


def document_span(tokens: NDArray[Any], start: int, stop: int, *, bos_id: int, eos_id: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return positions [start, stop) of `[bos] tokens` and of `tokens [eos]`."""
    inputs, labels = np.full(stop - start, bos_id, np.int64), np.full(stop - start, eos_id, np.int64)
    first = 1 if start == 0 else 0
    inputs[first:] = tokens[start + first - 1 : stop - 1]
    labels[: min(stop, len(tokens)) - start] = tokens[start : min(stop, len(tokens))]
    return inputs, labels


def rows_of_step(step: int, *, rows_per_step: int, micro_batch_size: int, process_index: int, num_processes: int) -> list[range]:
    """Return the global row indices of each micro-batch of one process in `step`.

    The rows of a step are the same set whatever the number of processes: micro-batch a of process p takes the block
    a * num_processes + p. `rows_per_step` must be a multiple of micro_batch_size * num_processes.
    """
    first = step * rows_per_step
    stride = micro_batch_size * num_processes
    offset = micro_batch_size * process_index
    starts = range(first + offset, first + rows_per_step, stride)
    return [range(start, start + micro_batch_size) for start in starts]
