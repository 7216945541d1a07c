"""Warm-up, stable, decay: the learning-rate factor of each step.

The rate rises linearly, stays, and falls linearly to `final_factor` (WSD: Hu et al., MiniCPM, arXiv 2404.06395, with the
linear cool-down of Hägele et al., arXiv 2405.18392). A stable trunk can be branched: to train longer is to resume.
"""

from __future__ import annotations

from torch.optim import Optimizer

from pipeline.errors import StageError


def wsd_factor(step: int, *, num_steps: int, warmup_steps: int, cooldown_steps: int, final_factor: float = 0.0) -> float:
    """Return the factor on the learning rate for the update number `step` (0 is the first), in [0, 1]."""
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    left = num_steps - step
    if left >= cooldown_steps:
        return warm
    return min(warm, final_factor + (1 - final_factor) * left / cooldown_steps)


def check_schedule(*, num_steps: int, warmup_steps: int, cooldown_steps: int) -> None:
    """Refuse a schedule that has no room.

    Raises:
        StageError: no step at all, or warm-up and cool-down longer than the training.
    """
    if num_steps < 1:
        raise StageError(f"num_steps is {num_steps}: at least one step is needed; raise the horizon or the budget")
    if warmup_steps + cooldown_steps > num_steps:
        raise StageError(
            f"warm-up of {warmup_steps} steps and cool-down of {cooldown_steps} steps do not fit into {num_steps} steps; "
            "train longer or shorten them"
        )


def set_learning_rates(optimizers: list[Optimizer], factor: float) -> None:
    """Set each group's learning rate to `factor` times its `initial_lr`, which is recorded on the first call."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
