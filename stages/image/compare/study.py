"""All numbers of a comparison in one place, and the questions that tables, claims and pictures ask of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.common.images.grid import Grid
from stages.common.verdicts import (
    Difference,
    Estimate,
    Sampled,
    Verdict,
    difference,
    estimate,
    holm,
    paired_bootstrap,
    verdict,
)
from stages.image.compare.models import Contestant, matched, usual_budget

ITERATIVE = ("flow_matching", "diffusion")
"""Families that make a sample in many small steps."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number of a model.

    Attributes:
        key: as in `metrics.json`.
        title: for people, with the unit.
        unit: alone.
        higher_is_better: None where there is no better, such as a ratio that should be 1.
        is_count: a whole number, the same for each seed.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool | None
    is_count: bool = False


COLUMNS = {
    column.key: column
    for column in (
        Column(key="fd_ratio", title="distance (0 real, 1 pixels)", unit="1", higher_is_better=False),
        Column(key="fd", title="Fréchet distance", unit="1", higher_is_better=False),
        Column(key="kid", title="KID", unit="1", higher_is_better=False),
        Column(key="precision", title="precision", unit="1", higher_is_better=True),
        Column(key="recall", title="recall", unit="1", higher_is_better=True),
        Column(key="density", title="density", unit="1", higher_is_better=True),
        Column(key="coverage", title="coverage", unit="1", higher_is_better=True),
        Column(key="vendi_ratio", title="Vendi ÷ real", unit="1", higher_is_better=None),
        Column(key="class_tv", title="class shares, TV", unit="1", higher_is_better=False),
        Column(key="laplacian_ratio", title="Laplacian ÷ real", unit="1", higher_is_better=None),
        Column(key="hf_ratio", title="fine detail ÷ real", unit="1", higher_is_better=None),
        Column(key="nn_ratio", title="nearest train ÷ real", unit="1", higher_is_better=None),
        Column(key="memorised_share", title="near copies of train", unit="1", higher_is_better=False),
        Column(key="duplicate_share", title="exact copies of train", unit="1", higher_is_better=False),
        Column(key="bits_per_dim", title="bit/dim", unit="bit/dim", higher_is_better=False),
        Column(key="bits_gap", title="bit/dim above train", unit="bit/dim", higher_is_better=None),
        Column(key="parameters", title="parameters", unit="1", higher_is_better=None, is_count=True),
        Column(key="extra_parameters", title="for training only", unit="1", higher_is_better=None, is_count=True),
        Column(key="training_tflop", title="training, TFLOP", unit="TFLOP", higher_is_better=None),
        Column(key="wall_seconds", title="training, s", unit="s", higher_is_better=False),
        Column(key="cpu_seconds", title="training, CPU s", unit="s", higher_is_better=False),
        Column(key="peak_memory_gib", title="memory, GiB", unit="GiB", higher_is_better=False),
        Column(key="latency_ms_per_image", title="ms/image", unit="ms", higher_is_better=False),
        Column(key="num_function_evaluations", title="calls/image", unit="1", higher_is_better=False, is_count=True),
        Column(key="gradient_spread", title="spread of ln gradient norm", unit="1", higher_is_better=False),
    )
}


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """What makes a Fréchet distance readable, on the main extractor.

    Attributes:
        floor: of real training images to unseen ones.
        ceiling: of images whose pixels are drawn one by one, each as often as in train.
        num_samples: images on the side of the model; num_reference: real ones.
        extractor: name of the main extractor.
    """

    floor: float
    ceiling: float
    num_samples: int
    num_reference: int
    extractor: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that was measured.

    Attributes:
        numbers: label -> key of a column -> number; a key is missing where a model has no such number.
        anytime: label -> share of the budget -> normalised distance.
        raw: label -> normalised distance of the weights after the last step, without the average.
        distances: space (an extractor or pixels) -> label -> Fréchet distance, mean over seeds.
        agreement: pair of spaces -> Kendall's tau of the two rankings.
        split: what samples are held against and bits are measured on.
        tolerance: of the budget, for a verdict.
        num_resamples, seed: of the bootstrap.
    """

    grid: Grid
    contestants: Sequence[Contestant]
    anchors: Anchors
    numbers: Mapping[str, Mapping[str, Sampled]]
    anytime: Mapping[str, Mapping[str, Sampled]]
    raw: Mapping[str, Sampled]
    distances: Mapping[str, Mapping[str, float]]
    agreement: Mapping[tuple[str, str], float]
    split: str
    tolerance: float
    num_resamples: int
    seed: int

    def number(self, label: str, key: str) -> Sampled | None:
        """Return a number of a model, None where it has none."""
        return self.numbers[label].get(key)

    def estimate(self, label: str, key: str) -> Estimate | None:
        """Return mean and interval of a number, None where the model has none."""
        found = self.number(label, key)
        return None if found is None else estimate(found)

    def difference(self, first: str, second: str, key: str) -> Difference | None:
        """Return first minus second; None where one has no such number or nothing is known of the spread."""
        one, other = self.number(first, key), self.number(second, key)
        return None if one is None or other is None else difference(one, other)

    def families(self) -> list[str]:
        """Return the names of the families, each once."""
        return list(dict.fromkeys(one.family for one in self.contestants))

    def trained(self) -> list[Contestant]:
        """Return the trained models, one for each, in the table's order."""
        return [one for one in self.contestants if one.is_model and not one.is_classic]

    def is_matched(self, one: Contestant) -> bool:
        """Return whether a model kept to the budget that most models had; classic densities have none and always do."""
        usual = usual_budget(self.contestants)
        return one.is_classic or abs(one.budget - usual) <= self.tolerance * max(one.budget, usual)

    def best(self, key: str) -> str | None:
        """Return the label of the best model in a column, if it can be told from the second; else None."""
        better = COLUMNS[key].higher_is_better
        rivals = [one.label for one in self.contestants if self.is_matched(one) and self.number(one.label, key) is not None]
        if better is None or len(rivals) < 2:
            return None
        rivals.sort(key=lambda label: float(np.mean(list(self.numbers[label][key].values.values()))), reverse=better)
        by_label = {one.label: one for one in self.contestants}
        if key == "bits_per_dim":
            found = bits_difference(self, by_label[rivals[0]], by_label[rivals[1]])
        else:
            found = self.difference(rivals[0], rivals[1], key)
        if found is None:
            return None
        return rivals[0] if verdict(found, found.p_value, higher_is_better=better) == "better" else None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models compared.

    Attributes:
        found: first minus second; None where the two may not be compared.
        p_value: with Holm's correction over the pairs of its table.
        outcome: of the first model.
        note: what the reader must know of the pair.
    """

    first: Contestant
    second: Contestant
    found: Difference | None
    p_value: float
    outcome: Verdict | None
    note: str


def compare_pairs(study: Study, key: str, pairs: Sequence[tuple[Contestant, Contestant]]) -> list[Pair]:
    """Compare pairs in one column of COLUMNS; those that may not be compared are kept, and say why."""
    return _judged(study, pairs, lambda one, other: study.difference(one.label, other.label, key), _no_note)


def compare_bits(study: Study, pairs: Sequence[tuple[Contestant, Contestant]]) -> list[Pair]:
    """Compare the bits per dimension of pairs on the same images; models without a likelihood are left out."""
    known = [(one, other) for one, other in pairs if one.kind and other.kind]
    return _judged(study, known, lambda one, other: bits_difference(study, one, other), _kinds)


def bits_difference(study: Study, first: Contestant, second: Contestant) -> Difference | None:
    """Return first minus second in bits per dimension, over the images that both were measured on; None without a seed."""
    seeds = sorted(first.runs.keys() & second.runs.keys())
    if not seeds:
        return None
    n = min(len(one.runs[seed].bits[study.split]) for one in (first, second) for seed in seeds)
    rows = [np.stack([one.runs[seed].bits[study.split][:n] for seed in seeds]) for one in (first, second)]
    return paired_bootstrap(*rows, seed=study.seed, num_resamples=study.num_resamples)


def trained_pairs(study: Study) -> list[tuple[Contestant, Contestant]]:
    """Return all pairs of trained models."""
    return list(itertools.combinations(study.trained(), 2))


def classic_pairs(study: Study) -> list[tuple[Contestant, Contestant]]:
    """Return each trained model with each classic density."""
    classic = [one for one in study.contestants if one.is_classic and one.is_model]
    return list(itertools.product(study.trained(), classic))


def _judged(
    study: Study,
    pairs: Sequence[tuple[Contestant, Contestant]],
    compare: Callable[[Contestant, Contestant], Difference | None],
    note: Callable[[Difference, Contestant, Contestant], str],
) -> list[Pair]:
    found = [compare(one, other) if matched(one, other, study.tolerance) else None for one, other in pairs]
    adjusted = iter(holm([one.p_value for one in found if one is not None]))
    judged = []
    for (first, second), one in zip(pairs, found, strict=True):
        if one is None:
            fair = matched(first, second, study.tolerance)
            why = "no common seed, or no spread is known" if fair else "budgets are not matched: no verdict"
            judged.append(Pair(first=first, second=second, found=None, p_value=1.0, outcome=None, note=why))
            continue
        p_value = next(adjusted)
        outcome = verdict(one, p_value, higher_is_better=False)
        judged.append(
            Pair(first=first, second=second, found=one, p_value=p_value, outcome=outcome, note=note(one, first, second))
        )
    return judged


def _kinds(found: Difference, first: Contestant, second: Contestant) -> str:
    """Say what a difference means when bits are bounds: a bound on the likelihood from below is one on the bits from above."""
    worse = second if found.mean < 0 else first
    if "lower bound" not in (first.kind, second.kind):
        return "numbers of a solver" if "numerical" in (first.kind, second.kind) else "both exact"
    if worse.kind != "lower bound":
        return "holds for the models: the bound is on the better side"
    return "of two bounds: the worse model may be better than its bound" if first.kind == second.kind else "the worse is a bound"


def _no_note(found: Difference, first: Contestant, second: Contestant) -> str:  # noqa: ARG001
    return ""
