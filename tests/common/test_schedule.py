"""The WSD schedule has the values of its definition."""

import pytest
import torch

from pipeline.errors import StageError
from stages.common.schedule import check_schedule, set_learning_rates, wsd_factor

WSD = {"num_steps": 10, "warmup_steps": 2, "cooldown_steps": 4}


def test_the_factor_rises_stays_and_falls():
    factors = [wsd_factor(step, **WSD) for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_the_fall_ends_one_step_above_the_final_factor():
    assert wsd_factor(9, **WSD, final_factor=0.2) == pytest.approx(0.2 + 0.8 / 4)


def test_without_warm_up_or_cool_down_the_factor_is_one():
    assert [wsd_factor(step, num_steps=3, warmup_steps=0, cooldown_steps=0) for step in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("num_steps", [5, 6, 7])
def test_a_longer_training_shares_its_trunk_with_a_shorter_one(num_steps):
    longer = [wsd_factor(step, num_steps=20, warmup_steps=2, cooldown_steps=3) for step in range(num_steps - 3)]
    assert longer == [wsd_factor(step, num_steps=num_steps, warmup_steps=2, cooldown_steps=3) for step in range(num_steps - 3)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_steps": 0, "warmup_steps": 0, "cooldown_steps": 0}, "at least one step"),
        ({"num_steps": 10, "warmup_steps": 11, "cooldown_steps": 0}, "warm-up of 11 steps"),
        ({"num_steps": 10, "warmup_steps": 6, "cooldown_steps": 5}, "do not fit into 10 steps"),
    ],
)
def test_a_schedule_without_room_is_refused(values, message):
    with pytest.raises(StageError, match=message):
        check_schedule(**values)


def test_rates_are_scaled_from_what_they_were_at_first():
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.4}], lr=1.0)
    for factor in (0.5, 1.0, 0.25):
        set_learning_rates([optimizer], factor)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * factor)
