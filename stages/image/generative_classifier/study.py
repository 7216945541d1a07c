"""All numbers of the comparison: errors by labels, paired differences, calibration, faults, foreign images.

Legend: L numbers of labels, S seeds, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from stages.common.images.calibration import expected_calibration_error, reliability
from stages.common.images.image_sets import TEST
from stages.common.verdicts import Difference, Estimate, Verdict, holm, paired_bootstrap, verdict
from stages.image.generative_classifier.bayes import log_loss, tempered
from stages.image.generative_classifier.cells import RIVAL, Cell, Judged, Side
from stages.image.generative_classifier.classical import PAIRS
from stages.image.generative_classifier.config import Config
from stages.image.generative_classifier.curves import LEAST_POINTS, Crossover, Curve, crossover, learning_curve
from stages.image.generative_classifier.detection import resampled_auroc, wins


@dataclass(frozen=True, kw_only=True)
class Model:
    """One classifier over all its numbers of labels and seeds.

    Attributes:
        name, side: of its cells.
        cells: (labels of each class, seed) -> training.
    """

    name: str
    side: Side
    cells: dict[tuple[int, int], Cell]

    @property
    def num_labels(self) -> list[int]:
        """The numbers of labels, from few to many."""
        return sorted({labels for labels, _ in self.cells})

    def at(self, num_labels: int, name: str = TEST) -> list[Judged]:
        """Return what each seed says of a set, in the order of the seeds; [] where one of them was not asked."""
        cells = [cell for (labels, _), cell in sorted(self.cells.items()) if labels == num_labels]
        return [cell.sets[name] for cell in cells] if all(name in cell.sets for cell in cells) else []

    def errors(self, num_labels: Sequence[int]) -> np.ndarray:
        """Return 1 for each wrong answer on test, (L, S, N)."""
        return np.stack([np.stack([judged.wrong for judged in self.at(labels)]) for labels in num_labels])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A generative model against a discriminative one.

    Attributes:
        first, second: generative, discriminative.
        num_labels: that both have.
        gaps: labels -> error of the first minus that of the second.
        verdicts: labels -> of the first, after Holm's correction over the numbers of labels.
        crossing: where the second overtakes; None with fewer than three numbers of labels.
    """

    first: Model
    second: Model
    num_labels: list[int]
    gaps: dict[int, Difference]
    verdicts: dict[int, Verdict]
    crossing: Crossover | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Confidence at the largest number of labels, on test; means over seeds, before and after temperature.

    Attributes:
        error: expected calibration error.
        log_loss: nats.
        temperature: geometric mean.
        bins: `reliability` of all seeds' answers together.
    """

    error: tuple[float, float]
    log_loss: tuple[float, float]
    temperature: float
    bins: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Detection:
    """AUROC of one score of one model on one foreign set, and its resamples."""

    model: str
    score: str
    foreign: str
    value: Estimate
    drawn: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that is shown.

    Attributes:
        models: by name, generative ones first.
        pairs: that are compared.
        curves: of models with at least three numbers of labels.
        calibration: by model.
        faults: (model, corrupted set or test) -> error, (S, N), at the largest number of labels.
        detections: of foreign images.
    """

    config: Config
    models: dict[str, Model]
    pairs: list[Pair]
    curves: dict[str, Curve]
    calibration: dict[str, Calibration]
    faults: dict[tuple[str, str], np.ndarray]
    detections: list[Detection]


def make_study(config: Config, cells: Sequence[Cell]) -> Study:
    """Compute everything."""
    models = _models(cells)
    options = {"seed": config.seed, "num_resamples": config.num_resamples}
    curves = {
        name: learning_curve(one.num_labels, one.errors(one.num_labels), **options)
        for name, one in models.items()
        if len(one.num_labels) >= LEAST_POINTS
    }
    return Study(
        config=config,
        models=models,
        pairs=_pairs(config, models),
        curves=curves,
        calibration={name: _calibration(one) for name, one in models.items()},
        faults=_faults(models),
        detections=_detections(config, models),
    )


def _models(cells: Sequence[Cell]) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for cell in sorted(cells, key=lambda cell: cell.side == "discriminative"):
        model = found.setdefault(cell.model, Model(name=cell.model, side=cell.side, cells={}))
        model.cells[cell.num_labels, cell.seed] = cell
    return found


def _pairs(config: Config, models: dict[str, Model]) -> list[Pair]:
    deep = [(one.name, RIVAL) for one in models.values() if one.side == "generative" and _is_trained(one)]
    wanted = [pair for pair in (*deep, *PAIRS) if pair[0] in models and pair[1] in models]
    return [_pair(config, models[first], models[second]) for first, second in wanted]


def _is_trained(model: Model) -> bool:
    return any(cell.training_flops for cell in model.cells.values())


def _pair(config: Config, first: Model, second: Model) -> Pair:
    common = sorted(set(first.num_labels) & set(second.num_labels))
    errors = [one.errors(common) for one in (first, second)] if common else []
    gaps = {labels: paired_bootstrap(errors[0][row], errors[1][row], seed=config.seed) for row, labels in enumerate(common)}
    corrected = holm([gap.p_value for gap in gaps.values()])
    verdicts = {labels: verdict(gaps[labels], p, higher_is_better=False) for labels, p in zip(common, corrected, strict=True)}
    crossing = None
    if len(common) >= LEAST_POINTS:
        crossing = crossover(common, *errors, seed=config.seed, num_resamples=config.num_resamples)
    return Pair(first=first, second=second, num_labels=common, gaps=gaps, verdicts=verdicts, crossing=crossing)


def _calibration(model: Model) -> Calibration:
    answers = model.at(model.num_labels[-1])
    labels = answers[0].labels
    after = [tempered(judged.log_posterior, labels) for judged in answers]
    stacks = [[judged.log_posterior for judged in answers], [values for values, _ in after]]
    probabilities = [[softmax(values, axis=1) for values in stack] for stack in stacks]
    errors = [float(np.mean([expected_calibration_error(p, labels) for p in stack])) for stack in probabilities]
    losses = [float(np.mean([log_loss(values, labels) for values in stack])) for stack in stacks]
    bins = [reliability(np.concatenate(stack), np.tile(labels, len(stack))) for stack in probabilities]
    return Calibration(
        error=(errors[0], errors[1]),
        log_loss=(losses[0], losses[1]),
        temperature=float(np.exp(np.mean([np.log(value) for _, value in after]))),
        bins=(bins[0], bins[1]),
    )


def _faults(models: dict[str, Model]) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    for one in models.values():
        most = one.num_labels[-1]
        for name, judged in _sets(one).items():
            if judged.role != "foreign":
                found[one.name, name] = np.stack([answer.wrong for answer in one.at(most, name)])
    return found


def _detections(config: Config, models: dict[str, Model]) -> list[Detection]:
    found = []
    for one in models.values():
        most = one.num_labels[-1]
        for name in [name for name, judged in _sets(one).items() if judged.role == "foreign"]:
            test, foreign = one.at(most), one.at(most, name)
            sides = list(zip(test, foreign, strict=True))
            scores = {"largest p(c | x)": [(a.log_posterior.max(axis=1), b.log_posterior.max(axis=1)) for a, b in sides]}
            if one.side == "generative":
                scores["log p(x)"] = [(_evidence(a), _evidence(b)) for a, b in sides]
            for score, values in scores.items():
                won = np.stack([wins(*both) for both in values])
                value, drawn = resampled_auroc(won, seed=config.seed, num_resamples=config.num_resamples)
                low, high = (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
                value = round(value, 12)
                estimate = Estimate(mean=value, low=low, high=high, num_seeds=len(won), method="images and seeds")
                found.append(Detection(model=one.name, score=score, foreign=name, value=estimate, drawn=drawn))
    return found


def _sets(model: Model) -> dict[str, Judged]:
    """Return the sets that every seed was asked about at the largest number of labels, as one of them answers."""
    most = model.num_labels[-1]
    cells = [cell for (labels, _), cell in sorted(model.cells.items()) if labels == most]
    return {name: judged for name, judged in cells[0].sets.items() if all(name in cell.sets for cell in cells)}


def _evidence(judged: Judged) -> np.ndarray:
    assert judged.log_evidence is not None, "a generative model has a log p(x)"
    return judged.log_evidence
