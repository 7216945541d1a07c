"""Documents in groups of like length: one document per row, hardly any padding, isolation by construction.

The other layout to `packing`: no two documents share a row, so plain causal attention is exact, needs no mask, and costs
the square of a document's length, not of the row's. On a CPU with short documents this was the faster layout; batches
differ in shape, which a compiled model or a GPU does not like.

A document longer than a row is cut into pieces, each read from its own start (counted as split, never dropped). Group i
is a pure function of (seed, epoch, i). A group takes the place of a row in `training`: one index, one forward pass.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import DataError
from stages.common.packing import IGNORED, Batch, document_span
from stages.common.token_store import TokenStore

POOL = 16
"""Groups that are formed together: lengths are alike within a group, random from group to group."""


class GroupedDocuments:
    """An endless sequence of groups of documents, addressed by a global index."""

    def __init__(self, store: TokenStore, *, context_length: int, group_tokens: int, seed: int, bos_id: int, eos_id: int) -> None:
        """Prepare groups of at most `group_tokens` positions, padding included, in rows of at most `context_length`.

        Raises:
            DataError: a group is smaller than a row, or the store holds no token.
        """
        if not 2 <= context_length <= group_tokens:
            raise DataError(f"a group of {group_tokens} tokens must hold a row of context_length {context_length} (at least 2)")
        self.context_length, self.group_tokens = context_length, group_tokens
        self._store, self._seed, self._bos_id, self._eos_id = store, seed, bos_id, eos_id
        self._documents, self._starts, self._lengths = _pieces(store, context_length)
        if not len(self._documents):
            raise DataError("the training split holds no token; check the corpus and the tokenizer")
        self.num_positions = int(self._lengths.sum())
        self._ends: list[int] = []
        self._epoch = -1
        self._groups: list[NDArray[np.int64]] = []

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return the group at the only index in `indices`; its rows are as long as its longest document."""
        (index,) = indices
        members = self._members(index)
        length = int(self._lengths[members].max())
        input_ids = np.full((len(members), length), self._eos_id, np.int64)
        labels = np.full((len(members), length), IGNORED, np.int64)
        for row, piece in enumerate(members):
            tokens = self._store.document(int(self._documents[piece]))
            start, size = int(self._starts[piece]), int(self._lengths[piece])
            span = document_span(tokens, start, start + size, bos_id=self._bos_id, eos_id=self._eos_id)
            input_ids[row, :size], labels[row, :size] = span
        return Batch(torch.from_numpy(input_ids), torch.from_numpy(labels), None)

    def num_supervised(self, indices: Sequence[int]) -> int:
        """Return how many labels of the groups at `indices` count, without building them."""
        return sum(int(self._lengths[self._members(index)].sum()) for index in indices)

    def waste(self) -> dict[str, float]:
        """Return what grouping costs in epoch 0; the keys are those of `PackedRows.waste`."""
        groups = self._grouped(0)
        positions = sum(int(self._lengths[group].max()) * len(group) for group in groups)
        split = len(np.unique(self._documents[self._starts > 0]))
        return {
            "padded_positions": positions - self.num_positions,
            "padded_share": (positions - self.num_positions) / positions,
            "split_documents": split,
            "split_share": split / len(np.unique(self._documents)),
            "cropped_tokens": 0,
        }

    def _members(self, index: int) -> NDArray[np.int64]:
        while not self._ends or self._ends[-1] <= index:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._grouped(len(self._ends))))
        epoch = bisect.bisect_right(self._ends, index)
        return self._grouped(epoch)[index - (self._ends[epoch - 1] if epoch else 0)]

    def _grouped(self, epoch: int) -> list[NDArray[np.int64]]:
        if epoch != self._epoch:
            self._groups, self._epoch = self._form(np.random.default_rng([self._seed, epoch])), epoch
        return self._groups

    def _form(self, generator: np.random.Generator) -> list[NDArray[np.int64]]:
        order = generator.permutation(len(self._lengths))
        pool_size = max(1, round(POOL * self.group_tokens * len(order) / self.num_positions))
        groups: list[NDArray[np.int64]] = []
        for first in range(0, len(order), pool_size):
            pool = order[first : first + pool_size]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            formed = np.split(pool, _borders(self._lengths[pool], self.group_tokens))
            groups.extend(formed[place] for place in generator.permutation(len(formed)))
        return groups


def _borders(lengths: NDArray[np.int64], group_tokens: int) -> list[int]:
    """Return where to cut ascending `lengths` so that rows x longest stays within `group_tokens`."""
    borders, first = [], 0
    for place, length in enumerate(lengths.tolist()):
        if length * (place + 1 - first) > group_tokens:
            borders.append(place)
            first = place
    return borders


def _pieces(store: TokenStore, context_length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return document, first position and positions of every piece; a document of n tokens has n + 1 positions."""
    lengths = store.lengths
    documents = np.flatnonzero(lengths)
    sizes = lengths[documents] + 1
    counts = -(-sizes // context_length)
    owner = np.repeat(np.arange(len(documents)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = number * context_length
    return documents[owner], starts, np.minimum(sizes[owner] - starts, context_length)
