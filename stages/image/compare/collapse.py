"""Signs of collapse, by rule: a model that draws few kinds of image may still draw each of them well.

Looked for in every training alone, for one that collapsed is hidden by the mean of three. Signs, not proof: a bad model far from
all real images has little recall as well, and its precision tells the two apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.common.wording import short
from stages.image.compare.models import Contestant
from stages.image.compare.study import Study

MOST_CLASS_DISTANCE = 0.3
LEAST_VARIETY = 0.5
MUCH_PRECISION, LITTLE_RECALL = 0.9, 0.1


@dataclass(frozen=True)
class Sign:
    """One rule: which numbers it looks at, when they tell of a collapse, and what it is called."""

    keys: tuple[str, ...]
    tells: Callable[..., bool]
    words: str


SIGNS = (
    Sign(("class_tv",), lambda distance: distance > MOST_CLASS_DISTANCE, "class shares far from those of real images"),
    Sign(("vendi_ratio",), lambda variety: variety < LEAST_VARIETY, "less than half the variety of real images"),
    Sign(
        ("precision", "recall"),
        lambda precision, recall: precision > MUCH_PRECISION and recall < LITTLE_RECALL,
        "precise, but next to nothing is recalled",
    ),
)
RULE = (
    f"A training shows a sign where more than {100 * MOST_CLASS_DISTANCE:g} % of its samples would have to change their class "
    f"(TV), where its Vendi score is below {LEAST_VARIETY:g} of that of real images, or where precision is above "
    f"{MUCH_PRECISION:g} with recall below {LITTLE_RECALL:g}."
)


def signs_of(study: Study, one: Contestant) -> list[str]:
    """Return the signs of a model with the trainings that show them, such as `less than half the variety ... (seed 3: 0.41)`."""
    found = []
    for sign in SIGNS:
        numbers = [number.values for key in sign.keys if (number := study.number(one.label, key)) is not None]
        if len(numbers) < len(sign.keys):
            continue
        values = {seed: [each[seed] for each in numbers] for seed in numbers[0]}
        seeds = [f"seed {seed}: {_shown(row)}" for seed, row in values.items() if sign.tells(*row)]
        if seeds:
            found.append(f"{sign.words} ({'; '.join(seeds)})")
    return found


def _shown(values: Sequence[float]) -> str:
    return " and ".join(short(value) for value in values)
