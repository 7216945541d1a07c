"""Groups of like length: every token once per epoch, pure functions of their index, within their size."""

import numpy as np
import pytest
import torch

from pipeline.errors import DataError
from stages.common.grouping import GroupedDocuments
from stages.common.packing import IGNORED
from stages.common.token_store import write_token_store

BOS, EOS = 0, 1


@pytest.fixture
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(2, 50, size=n).tolist() for n in [3, 1, 0, 20, 7, 33, 2, 5, 8, 1, 15, 16, 31, 32] * 4]


@pytest.fixture
def groups(tmp_path, documents):
    store = write_token_store(tmp_path / "s", [documents], vocab_size=50)
    return GroupedDocuments(store, context_length=16, group_tokens=48, seed=3, bos_id=BOS, eos_id=EOS)


def epochs(groups, count):
    """Read whole epochs by counting supervised positions."""
    index, found = 0, []
    for _ in range(count):
        seen, batches = 0, []
        while seen < groups.num_positions:
            batches.append(groups.batch([index]))
            seen += int((batches[-1].labels != IGNORED).sum())
            index += 1
        assert seen == groups.num_positions
        found.append(batches)
    return found


def pieces_of(documents):
    targets = [[*document, EOS] for document in documents if document]
    return sorted(target[start : start + 16] for target in targets for start in range(0, len(target), 16))


def test_each_epoch_supervises_every_position_exactly_once(groups, documents):
    for batches in epochs(groups, 3):
        rows = [row[row != IGNORED].tolist() for batch in batches for row in batch.labels]
        assert sorted(rows) == pieces_of(documents)


def test_each_label_is_the_id_that_follows(groups):
    for batch in epochs(groups, 1)[0]:
        inner = batch.labels[:, :-1] != IGNORED
        inner &= batch.labels[:, :-1] != EOS
        assert torch.equal(batch.labels[:, :-1][inner], batch.input_ids[:, 1:][inner])


def test_a_group_stays_within_its_size_and_its_rows_are_alike(groups):
    batches = epochs(groups, 1)[0]
    assert all(batch.input_ids.numel() <= 48 and batch.input_ids.shape[1] <= 16 for batch in batches)
    assert groups.waste()["padded_share"] < 0.15
    padded = sum(int((batch.labels == IGNORED).sum()) for batch in batches)
    assert groups.waste()["padded_positions"] == padded


def test_a_group_is_a_pure_function_of_its_index(groups, tmp_path):
    forwards = [groups.batch([index]).input_ids for index in range(60)]
    for index in (59, 3, 31, 0):
        fresh = GroupedDocuments(groups._store, context_length=16, group_tokens=48, seed=3, bos_id=BOS, eos_id=EOS)
        assert torch.equal(fresh.batch([index]).input_ids, forwards[index])
        assert groups.num_supervised([index]) == int((groups.batch([index]).labels != IGNORED).sum())


def test_epochs_differ_and_groups_come_in_no_order_of_length(groups):
    first, second = epochs(groups, 2)
    lengths = [batch.input_ids.shape[1] for batch in first]
    assert lengths != sorted(lengths)
    assert [b.input_ids.tolist() for b in first] != [b.input_ids.tolist() for b in second]


def test_a_group_smaller_than_a_row_is_refused(groups):
    with pytest.raises(DataError, match="must hold a row of context_length 16"):
        GroupedDocuments(groups._store, context_length=16, group_tokens=15, seed=0, bos_id=BOS, eos_id=EOS)
