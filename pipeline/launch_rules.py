"""What launch settings must keep to, checked when a graph is built: a mistake here is told before anything runs."""

from __future__ import annotations

from pipeline.config import StageConfig
from pipeline.errors import RecipeError
from pipeline.launch import Launch


def check_launch(launch: Launch, kind: type[StageConfig], stage: str, where: str) -> None:
    """Refuse launch settings that a stage cannot run with.

    Args:
        launch: the settings.
        kind: the stage's Config, which says whether several processes share its work.
        stage: the stage's dotted name.
        where: opens the message.

    Raises:
        RecipeError: names key, value, rule and what to do.
    """
    if launch.processes > 1 and not kind.shares_work:
        raise RecipeError(
            f"{where}: launch.processes is {launch.processes}, but {stage} does all its work in one process; leave "
            f"launch.processes out (a stage whose processes share the work says `shares_work = True` in its Config)"
        )
