"""Trials: which settings name validation images best, for the networks of both sides by one rule.

Legend: S seeds, N validation images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from scipy.special import log_softmax

from pipeline.contract import Context, write_bytes, write_json
from pipeline.errors import DataError
from stages.common.images.grid import Grid
from stages.common.images.image_sets import VALIDATION
from stages.common.verdicts import Estimate
from stages.common.wording import short, with_interval
from stages.image.generative_classifier.bayes import losses, temperature
from stages.image.generative_classifier.cells import Cell, Side, check_unique
from stages.image.generative_classifier.estimates import share

RULE = "the fewest errors on validation images, and of equals the smallest log-loss after temperature"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One setting of one model.

    Attributes:
        model, side: as of its cells.
        settings: those in which the trials of the model differ.
        error: on validation images.
        log_loss: nats, at the temperature that suits these images best: the scale of the confidence is set later anyhow.
        is_chosen: by the rule, among the trials of its model.
    """

    model: str
    side: Side
    settings: Mapping[str, Any]
    error: Estimate
    log_loss: float
    is_chosen: bool


def judge(cells: Sequence[Cell]) -> list[Trial]:
    """Return the trials of every model, the best of each model first.

    Raises:
        DataError: a training is there twice, or the trials of a model were made at different labels or seeds.
    """
    check_unique(cells)
    trials: list[Trial] = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = [cell for cell in cells if cell.model == model]
        _check_same_places(model, own)
        differing = _differing(own)
        groups: dict[str, list[Cell]] = {}
        for cell in own:
            groups.setdefault(json.dumps(_only(cell.settings, differing), sort_keys=True), []).append(cell)
        found = sorted((_figures(group) for group in groups.values()), key=lambda one: (one[0].mean, one[1]))
        trials += [
            Trial(
                model=model,
                side=own[0].side,
                settings=_only(group[0].settings, differing),
                error=error,
                log_loss=log_loss,
                is_chosen=place == 0,
            )
            for place, (error, log_loss, group) in enumerate(found)
        ]
    return trials


def write(context: Context, trials: Sequence[Trial], cells: Sequence[Cell], grid: Grid) -> None:
    """Write the section, `trials.json` and the card."""
    num_images = len(cells[0].sets[VALIDATION].labels)
    labels = ", ".join(str(n) for n in sorted({cell.num_labels for cell in cells}))
    tflop = max(cell.training_flops or 0.0 for cell in cells) / 1e12
    seeds = len(_seeds(cells))
    context.section.describe(
        title="Trials of settings",
        idea="A comparison is fair only if every model was given the same chance to find its best settings. Each was trained "
        "with several of them, on a part of the budget, and asked about validation images: images that no model learns from and "
        "that the comparison itself never counts.",
        formula="chosen = argmin over settings of (errors on validation)",
    )
    rows: list[list[str | int | float | bool | None]] = [
        [one.model, one.side, _words(one.settings), with_interval(one.error), short(one.log_loss), one.is_chosen]
        for one in trials
    ]
    context.section.table(
        "Settings that were tried",
        ["model", "side", "settings", "error on validation", "log-loss, tempered, nat", "chosen"],
        rows,
        caption=f"Every trial: {labels} labelled images of each class, at most {short(tflop)} TFLOP of counted training, "
        f"{seeds} seed{'s' * (seeds != 1)}, {num_images} validation images; intervals of 95 %. Chosen is {RULE}. Intervals that "
        "overlap say that the choice might have been another one with other images.",
    )
    chosen = {one.model: one for one in trials if one.is_chosen}
    for model, one in chosen.items():
        context.metric(
            "error",
            one.error.mean,
            unit="1",
            higher_is_better=False,
            n=num_images,
            split=VALIDATION,
            items="images",
            label=model,
            interval=[one.error.low, one.error.high],
        )
    write_json(context.directory / "trials.json", {"rule": RULE, "trials": [_json(one) for one in trials]})
    metadata = {"license": grid.license, "tags": ["groundup", "image-classification"]}
    lines = [
        f"- {model}: {_words(one.settings)} (error on validation {with_interval(one.error)})" for model, one in chosen.items()
    ]
    text = f"---\n{yaml.safe_dump(metadata)}---\n# Trials of classifiers of {grid.name}\n\nChosen: {RULE}.\n\n" + "\n".join(lines)
    write_bytes(context.directory / "card.md", f"{text}\n".encode())


def _figures(cells: Sequence[Cell]) -> tuple[Estimate, float, Sequence[Cell]]:
    answers = [cell.sets[VALIDATION] for cell in cells]
    scaled = [log_softmax(one.log_posterior / temperature(one.log_posterior, one.labels), axis=1) for one in answers]
    log_loss = float(np.mean([losses(values, one.labels).mean() for values, one in zip(scaled, answers, strict=True)]))
    by_seed = [np.mean([cell.sets[VALIDATION].wrong for cell in cells if cell.seed == seed], axis=0) for seed in _seeds(cells)]
    return share(np.stack(by_seed)), log_loss, cells


def _seeds(cells: Sequence[Cell]) -> list[int]:
    return sorted({cell.seed for cell in cells})


def _check_same_places(model: str, cells: Sequence[Cell]) -> None:
    places: dict[str, set[tuple[int, int]]] = {}
    for cell in cells:
        places.setdefault(json.dumps(cell.settings, sort_keys=True), set()).add((cell.num_labels, cell.seed))
    if len({frozenset(found) for found in places.values()}) > 1:
        raise DataError(
            f"the trials of {model} were made at different num_labels or seeds; give all of them the same, or the easiest wins"
        )


def _differing(cells: Sequence[Cell]) -> list[str]:
    first = cells[0].settings
    return [key for key in first if any(cell.settings.get(key) != first[key] for cell in cells)]


def _only(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: settings[key] for key in keys}


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "one setting alone"


def _json(one: Trial) -> dict[str, Any]:
    error = {"mean": one.error.mean, "low": one.error.low, "high": one.error.high}
    return {
        "model": one.model,
        "side": one.side,
        "settings": dict(one.settings),
        "error": error,
        "log_loss": one.log_loss,
        "is_chosen": one.is_chosen,
    }
