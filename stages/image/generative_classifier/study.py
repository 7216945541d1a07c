"""All numbers of the comparison: errors by labels, paired differences, calibration, faults, foreign images.

Legend: L numbers of labels, S seeds, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.common.images.image_sets import TEST, VALIDATION
from stages.common.verdicts import Difference, Estimate, Verdict, holm, paired_bootstrap, verdict
from stages.image.generative_classifier.cells import RIVAL, Cell, Judged, Side
from stages.image.generative_classifier.classical import PAIRS
from stages.image.generative_classifier.confidence import Calibration, calibration
from stages.image.generative_classifier.config import Config
from stages.image.generative_classifier.curves import LEAST_POINTS, Crossover, Curve, crossover, learning_curve
from stages.image.generative_classifier.detection import resampled_auroc, wins
from stages.image.generative_classifier.estimates import share, widened


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
class Detection:
    """AUROC of one score of one model on one foreign set.

    Attributes:
        model, score, foreign: which.
        areas: of each seed, (S,).
        drawn: means over the seeds in resamples of test and foreign images, (R,).
    """

    model: str
    score: str
    foreign: str
    areas: np.ndarray
    drawn: np.ndarray

    @property
    def value(self) -> Estimate:
        """The mean over seeds, by other images and other seeds."""
        return _area(self.areas, self.drawn, bounds=(0.0, 1.0))

    def minus(self, other: Detection) -> Estimate:
        """Return how much larger this area is than `other` on the same images and seeds."""
        return _area(self.areas - other.areas, self.drawn - other.drawn, bounds=(-1.0, 1.0))


def _area(values: np.ndarray, drawn: np.ndarray, *, bounds: tuple[float, float]) -> Estimate:
    low, high = (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    return widened(values.round(12).tolist(), (low, high), bounds=bounds)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model takes at the most labels, means over seeds; None where nothing is counted.

    Attributes:
        kind, detail: of its p(x | c), and how it is computed.
        training_flops: of one training.
        answer_flops: of one answer, all classes included.
        parameters: of the network.
        latency_ms: wall milliseconds of one answer, all test images at once.
        noise: standard deviation of the log odds over other draws, nats.
    """

    kind: str
    detail: str
    training_flops: float | None
    answer_flops: float | None
    parameters: int | None
    latency_ms: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that is shown.

    Attributes:
        models: by name; trained networks before classical ones, of both the generative ones first.
        pairs: that are compared.
        errors: (model, labels of each class) -> share of wrong answers on test.
        curves: of models with at least three numbers of labels.
        costs, calibration: by model.
        faults: (model, corrupted set or test) -> 1 for each wrong answer, (S, N), at the largest number of labels.
        detections: of foreign images.
    """

    config: Config
    models: dict[str, Model]
    pairs: list[Pair]
    errors: dict[tuple[str, int], Estimate]
    curves: dict[str, Curve]
    costs: dict[str, Cost]
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
        errors={(name, n): share(one.errors([n])[0]) for name, one in models.items() for n in one.num_labels},
        curves=curves,
        costs={name: _cost(one) for name, one in models.items()},
        calibration={name: _calibration(one, **options) for name, one in models.items()},
        faults=_faults(models),
        detections=_detections(config, models),
    )


def _models(cells: Sequence[Cell]) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for cell in sorted(cells, key=lambda cell: (not cell.training_flops, cell.side == "discriminative")):
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


def _cost(model: Model) -> Cost:
    cells = [cell for (labels, _), cell in sorted(model.cells.items()) if labels == model.num_labels[-1]]
    first = cells[0]
    return Cost(
        kind=first.kind,
        detail=first.detail,
        training_flops=first.training_flops,
        answer_flops=first.flops_for_one_image,
        parameters=first.parameters,
        latency_ms=float(np.mean([cell.latency_ms for cell in cells])),
        noise=float(np.mean([cell.noise for cell in cells])),
    )


def _calibration(model: Model, *, seed: int, num_resamples: int) -> Calibration:
    most = model.num_labels[-1]
    return calibration(model.at(most), model.at(most, VALIDATION), seed=seed, num_resamples=num_resamples)


def _faults(models: dict[str, Model]) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    for one in models.values():
        most = one.num_labels[-1]
        for name, judged in _sets(one).items():
            if judged.role in ("test", "corrupted"):
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
                drawn = resampled_auroc(won, seed=config.seed, num_resamples=config.num_resamples)
                found.append(Detection(model=one.name, score=score, foreign=name, areas=won.mean(axis=(1, 2)), drawn=drawn))
    return found


def _sets(model: Model) -> dict[str, Judged]:
    """Return the sets that every seed was asked about at the largest number of labels, as one of them answers."""
    most = model.num_labels[-1]
    cells = [cell for (labels, _), cell in sorted(model.cells.items()) if labels == most]
    return {name: judged for name, judged in cells[0].sets.items() if all(name in cell.sets for cell in cells)}


def _evidence(judged: Judged) -> np.ndarray:
    assert judged.log_evidence is not None, "a generative model has a log p(x)"
    return judged.log_evidence
