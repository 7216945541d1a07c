"""How many steps to train: as set, from tokens, from the size of the model, or from a budget of minutes.

A budget is turned into steps once, by timing real steps that are undone afterwards; the number is kept in
`resolved.json`, so a resumed training follows the same plan and ends with the same weights.
"""

from __future__ import annotations

from pipeline.errors import StageError
from stages.text.pretrain.config import Config
from stages.text.pretrain.shape import Shape

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al., arXiv 2203.15556."""
SAFETY = 0.94
"""Share of the remaining budget that is planned: a machine may be slower later than it was when it was timed."""


def steps_without_budget(config: Config, shape: Shape, *, tokens_per_step: int) -> int:
    """Return the steps of a horizon in steps or tokens, or of the default horizon; at least 1."""
    if config.num_steps:
        return config.num_steps
    tokens = config.num_tokens or TOKENS_PER_PARAMETER * shape.num_parameters
    return max(1, round(tokens / tokens_per_step))


def steps_of_budget(
    config: Config, *, seconds_spent: float, seconds_per_step: float, tokens_per_step: int, evaluation_tokens: int
) -> int:
    """Return the steps that fit into the budget, on the short side.

    Args:
        config: holds budget_minutes and what interrupts training.
        seconds_spent: age of the stage.
        seconds_per_step: measured.
        tokens_per_step: positions of a step.
        evaluation_tokens: tokens that one evaluation during training scores.

    Raises:
        StageError: not even one step fits.
    """
    assert config.budget_minutes is not None
    # A forward pass alone takes about 0.4 of a step's time per token; a sample at most some seconds.
    evaluation = 0.5 * seconds_per_step * evaluation_tokens / tokens_per_step + 2.0
    left = config.budget_minutes * 60 - seconds_spent - config.num_evaluations * evaluation
    steps = int(SAFETY * left / seconds_per_step)
    if steps < 1:
        raise StageError(
            f"budget_minutes is {config.budget_minutes:g}: {seconds_spent:.0f} s are spent already and a step takes "
            f"{seconds_per_step:.1f} s, so not one fits; raise the budget"
        )
    return steps
