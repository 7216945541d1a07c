"""What the tests of the course's sentences about the families have in common: which models, which of their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from stages.common.claims import Finding
from stages.common.verdicts import Estimate, t_interval
from stages.common.wording import with_interval
from stages.image.compare.contrasts import contrast
from stages.image.compare.models import END, Contestant, matched
from stages.image.compare.study import COLUMNS, Study


def ratio_finding(study: Study, label: str, key: str) -> Finding:
    """Say whether a ratio to real images lies above or below 1."""
    found = study.estimate(label, key)
    assert found is not None, f"{label} has no {key}"
    return Finding.of(f"{label}: {COLUMNS[key].title} {with_interval(found)}", found, 1.0)


def gap_finding(study: Study, first: Contestant, others: Sequence[Contestant], key: str) -> Finding | None:
    """Say whether a model's number lies above or below another's, or the mean of several others'; None where one is missing."""
    ours, theirs = study.number(first.label, key), [study.number(other.label, key) for other in others]
    numbers = [number for number in theirs if number is not None]
    if ours is None or not numbers:
        return None
    weight = -1 / len(numbers)
    found = contrast([(1.0, ours), *((weight, number) for number in numbers)], study.pool(key))
    words = "no spread is known" if found is None else with_interval(found)
    name = others[0].label if len(others) == 1 else "the mean of the others"
    return Finding.of(f"{COLUMNS[key].title}, {first.label} minus {name}: {words}", found, 0.0)


def of_family(study: Study, families: Iterable[str], sample_set: str = END) -> list[Contestant]:
    """Return the models of some families, or one of their other ways to draw samples."""
    return [one for one in study.contestants if one.family in families and one.sample_set == sample_set]


def rivals_of(study: Study, one: Contestant) -> list[Contestant]:
    """Return the trained models of other families with the same budget."""
    return [other for other in study.trained() if other.family != one.family and matched(one, other, study.tolerance)]


def published(one: Contestant, name: str, **facts: str) -> list[tuple[float, tuple[float, float] | None]]:
    """Return value and interval of a metric that the model's own stage measured, one for each seed that has it."""
    found = []
    for run in one.runs.values():
        for row in run.artifact.record.metrics:
            if row["name"] == name and all(row.get(key) == value for key, value in facts.items()):
                found.append((float(row["value"]), tuple(row["interval"]) if row.get("interval") else None))
                break
    return found


def published_estimate(one: Contestant, name: str) -> Estimate | None:
    """Return the mean of such a metric over seeds; below three seeds the widest of the intervals that came with it."""
    found = published(one, name)
    if not found:
        return None
    values, ends = [value for value, _ in found], [interval for _, interval in found if interval]
    mean, num_seeds = float(np.mean(values)), len(values)
    if num_seeds >= 3:
        low, high = t_interval(values)
        return Estimate(mean=mean, low=low, high=high, num_seeds=num_seeds, method="seeds")
    if not ends:
        return Estimate(mean=mean, low=math.nan, high=math.nan, num_seeds=num_seeds, method="none")
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return Estimate(mean=mean, low=low, high=high, num_seeds=num_seeds, method="samples")
