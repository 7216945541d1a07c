"""Which precision a training takes: the one whose passes are faster, and nothing else is changed by finding out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.common.packing import Batch
from stages.common.precision import LEAST_GAIN, MOST_SECONDS, PROBE_TOKENS, faster_dtype, probe_batch


class Clock:
    """Time that passes only where it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Loss(nn.Module):
    """Takes a given time for each pass, the last one for all further passes; draws a random number, as dropout does."""

    def __init__(self, clock: Clock, seconds: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self._clock, self._seconds, self.passes = clock, seconds, 0

    def forward(self, input_ids, labels, position_ids, scale):
        self._clock.now += self._seconds[min(self.passes, len(self._seconds) - 1)]
        self.passes += 1
        return self.weight.sum() * torch.rand(()) * scale


class Full(Loss):
    def forward(self, *_):
        raise torch.OutOfMemoryError("GPU")


BATCH = Batch(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long), None)


def chosen(exact: list[float], half: list[float]) -> tuple[str, Loss, Loss]:
    clock = Clock()
    losses = {"float32": Loss(clock, exact), "bfloat16": Loss(clock, half)}
    return faster_dtype(losses, BATCH, clock=clock), *losses.values()


@pytest.mark.parametrize(
    ("exact", "half", "name"),
    [
        ([0.1], [0.05], "bfloat16"),
        ([0.1], [0.2], "float32"),
        ([0.1], [0.1 / LEAST_GAIN + 0.001], "float32"),  # hardly faster, and less exact
        ([1.0, 0.1], [0.2], "float32"),  # the first pass is not counted
        ([0.1, 0.3, 0.1], [0.2], "float32"),  # the best of the others is
    ],
)
def test_the_faster_one_is_taken(exact, half, name):
    assert chosen(exact, half)[0] == name


def test_passes_are_tried_in_turn_and_few_where_they_are_slow():
    _, exact, half = chosen([0.01], [0.01])
    assert (exact.passes, half.passes) == (3, 3)
    name, exact, half = chosen([MOST_SECONDS], [MOST_SECONDS / 4])
    assert (name, exact.passes, half.passes) == ("bfloat16", 1, 1)


def test_no_gradient_and_no_random_number_is_left():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    _, *losses = chosen([0.1], [0.2])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(loss.weight.grad is None for loss in losses)


def test_what_does_not_fit_is_not_taken():
    clock = Clock()
    slow = Loss(clock, [100.0])
    assert faster_dtype({"float32": Full(clock, []), "bfloat16": slow}, BATCH, clock=clock) == "bfloat16"
    assert faster_dtype({"float32": slow, "bfloat16": Full(clock, [])}, BATCH, clock=clock) == "float32"


class Rows:
    def __init__(self, length: int) -> None:
        self.length = length

    def batch(self, indices):
        ids = torch.tensor(list(indices))[:, None].expand(-1, self.length)
        return Batch(ids, ids, None)


@pytest.mark.parametrize(
    ("length", "micro", "num"),
    [(PROBE_TOKENS // 4, 8, 4), (PROBE_TOKENS // 4, 2, 2), (PROBE_TOKENS * 2, 8, 1), (PROBE_TOKENS, 1, 1)],
)
def test_a_cpu_is_tried_on_the_first_rows_of_a_micro_batch(length, micro, num):
    batch = probe_batch(Rows(length), torch.device("cpu"), micro_batch_size=micro)
    assert batch.input_ids[:, 0].tolist() == list(range(num))
