"""Rows of `metrics.json`: every figure of every model, and which trainings it was measured from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.contract import Context
from stages.common.claims import Claim
from stages.common.verdicts import Estimate, Sampled, estimate
from stages.image.compare.models import Contestant
from stages.image.compare.modes import MODE_KEYS
from stages.image.compare.paths import PATH_KEYS, YARDSTICKS
from stages.image.compare.references import TO_TRAIN
from stages.image.compare.scores import IN_SPACE
from stages.image.compare.study import COLUMNS, Study
from stages.image.compare.tables import MEMORY, QUALITY

MAIN = ("fd_ratio", "bits_per_dim")
"""Figures that the page lists; the others stand in its tables."""
RECORDED = (*MAIN, *(key for key in (*QUALITY, *MODE_KEYS, *TO_TRAIN, *MEMORY, *PATH_KEYS) if key not in MAIN))
"""What is measured on a split; sizes and costs are in `table.csv` and `comparison.json`."""
_OF_IMAGES = ("bits_per_dim", "bits_gap")
"""Measured on images of the split; all others on samples."""
_SPLITS = {"fd_train": "train", **dict.fromkeys(PATH_KEYS, "test")}
"""Split that a number is measured on, where it is not that of the comparison."""
_IN_FEATURES = {*IN_SPACE, *TO_TRAIN, *PATH_KEYS}


def write_metrics(context: Context, study: Study, claims: Sequence[Claim]) -> None:
    """Record the numbers of each model, its label beside the name, and how many claims held."""
    for one in study.contestants:
        for key in RECORDED:
            found = study.number(one.label, key)
            if found is not None:
                _write_number(context, study, one, key, found)
    if tested := [claim for claim in claims if claim.outcome != "cannot be tested here"]:
        held = sum(claim.outcome == "holds" for claim in tested)
        context.metric(
            "claims_that_hold", held, unit="1", higher_is_better=None, n=len(tested), items="claims tested", headline=True
        )


def _write_number(context: Context, study: Study, one: Contestant, key: str, number: Sampled) -> None:
    column, mean = COLUMNS[key], estimate(number)
    facts: dict[str, Any] = {"extractor": study.anchors.extractor} if key in _IN_FEATURES else {}
    facts |= (
        {"num_modes": study.modes.num_modes, "judge_sha256": study.modes.judge_sha256} if study.modes and key in MODE_KEYS else {}
    )
    facts |= {"kind": one.kind} if key in _OF_IMAGES else {}
    facts |= {"yardstick": True} if key in YARDSTICKS else {}
    of = [_training(study, one, key, number, seed) for seed in number.values]
    references = {"fd": study.anchors.num_reference, "fd_train": study.anchors.num_train}
    facts |= {"num_references": references[key]} if key in references else {}
    context.metric(
        key,
        mean.mean,
        unit=column.unit,
        higher_is_better=column.higher_is_better,
        split=_SPLITS.get(key, study.split),
        label=one.label,
        title=column.title,
        listed=key in MAIN,
        headline=key == "fd_ratio" and study.is_matched(one) and not one.is_classic,
        of=of,
        **_counted(key, mean, of),
        **_interval(key, mean),
        **facts,
    )


def _training(study: Study, one: Contestant, key: str, number: Sampled, seed: int) -> dict[str, Any]:
    """Return what one training contributes to a row: who reads a single model wants its own value, not that of its siblings."""
    run = one.runs[seed]
    own = estimate(replace(number, values={seed: number.values[seed]}, deviations={seed: number.deviations[seed]}))
    items = _items(key)
    images = len(run.bits.get(study.split, ()))
    sizes = {"samples": study.anchors.num_samples, "images": images, "pairs": number.degrees + 1}
    return {
        "artifact": run.artifact.fingerprint,
        "seed": seed,
        "value": own.mean,
        "n": int(sizes[items]),
        "items": items,
        **_interval(key, own),
    }


def _counted(key: str, found: Estimate, of: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many of what the interval stands on: trainings, or what each of them was measured on."""
    if found.method != "samples":
        return {"n": found.num_seeds, "items": "seeds"}
    # Those of one training: a distance of 1,000 samples does not become one of 2,000 by a second training.
    return {"n": of[0]["n"], "items": _items(key)}


def _interval(key: str, found: Estimate) -> dict[str, Any]:
    """Return the interval and what was taken as random in it; none where nothing is known of the spread."""
    if math.isnan(found.low):
        return {"interval_over": found.method}
    over = _items(key) if found.method == "samples" else found.method
    return {"interval_over": over, "interval": [found.low, found.high]}


def _items(key: str) -> str:
    """Return what one training's number is measured on."""
    return "images" if key in _OF_IMAGES else "pairs" if key in PATH_KEYS else "samples"
