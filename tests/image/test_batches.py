"""The order of images: every epoch shows each once, any step's batch can be had alone, and processes share it out evenly."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import StageError
from stages.common.images.batches import Batches, rows_of_process


def seen(batches: Batches, num_steps: int) -> list[int]:
    return torch.cat([batches.rows(step) for step in range(num_steps)]).tolist()


@pytest.mark.parametrize(("num_images", "batch_size"), [(64, 8), (64, 24), (10, 4), (10, 10), (3, 8)])
def test_every_epoch_shows_every_image_once_and_in_another_order(num_images, batch_size):
    rows = seen(Batches(num_images, batch_size, seed=3), 2 * num_images)
    epochs = [rows[first : first + num_images] for first in range(0, len(rows), num_images)]
    assert all(sorted(epoch) == list(range(num_images)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_step_has_the_same_batch_whichever_steps_were_asked_for_before():
    in_order = seen(Batches(10, 4, seed=3), 9)
    assert [Batches(10, 4, seed=3).rows(step).tolist() for step in (8, 3)] == [in_order[32:36], in_order[12:16]]


def test_another_seed_is_another_order():
    assert seen(Batches(10, 4, seed=3), 5) != seen(Batches(10, 4, seed=4), 5)


def test_processes_take_equal_parts_or_none():
    assert rows_of_process(12, 4) == 3
    with pytest.raises(StageError, match=r"batch_size is 10: .* to 4 processes; set a multiple of 4"):
        rows_of_process(10, 4)
