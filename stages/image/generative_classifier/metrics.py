"""Rows of `metrics.json`: the error of every model at every number of labels, and which trainings it was measured from.

Legend: S seeds, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.contract import Context
from stages.common.claims import Claim
from stages.common.images.calibration import wilson_interval
from stages.common.verdicts import Estimate
from stages.image.generative_classifier.cells import Cell
from stages.image.generative_classifier.study import Model, Study


def write_metrics(context: Context, study: Study, claims: Sequence[Claim]) -> None:
    """Record the errors, of which the page lists those at the most labels, and how many claims held."""
    for one in study.models.values():
        for num_labels in one.num_labels:
            _write_error(context, one, num_labels, study.errors[one.name, num_labels])
    if tested := [claim for claim in claims if claim.outcome != "cannot be tested here"]:
        held = sum(claim.outcome == "holds" for claim in tested)
        context.metric(
            "claims_that_hold", held, unit="1", higher_is_better=None, n=len(tested), items="claims tested", headline=True
        )


def _write_error(context: Context, one: Model, num_labels: int, found: Estimate) -> None:
    wrong = one.errors([num_labels])[0]
    num_seeds, num_images = wrong.shape
    cells = [cell for (labels, _), cell in sorted(one.cells.items()) if labels == num_labels]
    trainings = [_training(cell, row) for cell, row in zip(cells, wrong, strict=True) if cell.artifact is not None]
    context.metric(
        "error",
        found.mean,
        unit="1",
        higher_is_better=False,
        n=num_images,
        split="test",
        items="images",
        label=one.name,
        title=f"share of wrong answers, {num_labels} labels of each class",
        listed=num_labels == one.num_labels[-1],
        num_labels=num_labels,
        seeds=num_seeds,
        interval=[found.low, found.high],
        interval_over=found.method,
        **({"of": trainings} if trainings else {}),  # classical models are fitted here and are no artifacts
    )


def _training(cell: Cell, wrong: np.ndarray) -> dict[str, Any]:
    """Return what one training contributes to a row; wrong: (N,), 1 for each wrong answer."""
    return {
        "artifact": cell.artifact,
        "seed": cell.seed,
        "value": float(wrong.mean()),
        "n": len(wrong),
        "items": "images",
        "interval": list(_over_images(wrong)),
        "interval_over": "images",
    }


def _over_images(wrong: np.ndarray) -> tuple[float, float]:
    return wilson_interval(int(wrong.sum()), len(wrong))
