"""All numbers of a comparison in one place, and the questions that tables, claims and pictures ask of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.common.images.grid import Grid
from stages.common.verdicts import (
    LEAST_SEEDS,
    Difference,
    Estimate,
    Sampled,
    Verdict,
    estimate,
    holm,
    paired_bootstrap,
    verdict,
)
from stages.image.compare.contrasts import Pool, logarithms, pool_of, unpaired
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
        in_ratios: two of them are compared by their ratio, for they differ by orders of magnitude and vary in proportion.
    """

    key: str
    title: str
    unit: str
    higher_is_better: bool | None
    is_count: bool = False
    in_ratios: bool = False


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
        Column(key="wall_seconds", title="training, s", unit="s", higher_is_better=False, in_ratios=True),
        Column(key="cpu_seconds", title="training, CPU s", unit="s", higher_is_better=False, in_ratios=True),
        Column(key="peak_memory_gib", title="memory, GiB", unit="GiB", higher_is_better=False, in_ratios=True),
        Column(key="latency_ms_per_image", title="ms/image", unit="ms", higher_is_better=False, in_ratios=True),
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

    def compared(self, label: str, key: str) -> Sampled | None:
        """Return a number as it is compared: its logarithm where ratios are; None where the model has none."""
        found = self.number(label, key)
        return logarithms(found) if found is not None and COLUMNS[key].in_ratios else found

    def pool(self, key: str) -> Pool | None:
        """Return the spread from seed to seed of a number, pooled over the trained models; None where they are too few."""
        found = (self.compared(one.label, key) for one in self.trained())
        return pool_of([number for number in found if number is not None])

    def difference(self, first: Contestant, second: Contestant, key: str) -> Difference | None:
        """Return first minus second, of logarithms where ratios are compared; None where one has no such number or spread.

        Densities fitted without steps do not vary as trainings do, so two of them are judged by their own spread.
        """
        one, other = self.compared(first.label, key), self.compared(second.label, key)
        pool = None if first.is_classic and second.is_classic else self.pool(key)
        return None if one is None or other is None else unpaired(one, other, pool)

    @cached_property
    def known_bits(self) -> dict[tuple[str, str], Difference | None]:
        """Differences in bits that were computed already, by labels: a bootstrap takes its time."""
        return {}

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
        """Return the label of the model that is better than every other in a column, by the verdicts of its tables; else None.

        Other ways to draw from a model are no rivals of it, and have no verdict.
        """
        rivals = [one for one in self.contestants if one.is_model and self.is_matched(one) and self.number(one.label, key)]
        if COLUMNS[key].higher_is_better is None or len(rivals) < 2:
            return None
        groups = (trained_pairs(self), classic_pairs(self), _pairs_of_classics(self))
        compared = compare_bits if key == "bits_per_dim" else lambda study, pairs: compare_pairs(study, key, pairs)
        beaten: dict[str, set[str]] = {one.label: set() for one in rivals}
        for pair in itertools.chain.from_iterable(compared(self, pairs) for pairs in groups):
            winner, loser = (pair.first, pair.second) if pair.outcome == "better" else (pair.second, pair.first)
            if pair.outcome in ("better", "worse") and winner.label in beaten:
                beaten[winner.label].add(loser.label)
        return next((label for label, losers in beaten.items() if beaten.keys() - {label} <= losers), None)


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
    higher_is_better = bool(COLUMNS[key].higher_is_better)
    return _judged(
        study, pairs, lambda one, other: study.difference(one, other, key), _no_note, higher_is_better=higher_is_better
    )


def compare_bits(study: Study, pairs: Sequence[tuple[Contestant, Contestant]]) -> list[Pair]:
    """Compare the bits per dimension of pairs on the same images; models without a likelihood are left out."""
    known = [(one, other) for one, other in pairs if one.kind and other.kind]
    return _judged(study, known, lambda one, other: bits_difference(study, one, other), _kinds)


def bits_difference(study: Study, first: Contestant, second: Contestant) -> Difference | None:
    """Return first minus second in bits per dimension, over the images that both were measured on; None without a seed."""
    labels = first.label, second.label
    if labels not in study.known_bits:
        study.known_bits[labels] = _bits_difference(study, first, second)
    return study.known_bits[labels]


def bits_pool(study: Study) -> Pool | None:
    """Return the spread of the bits from seed to seed, pooled over the trained models with a likelihood."""
    return pool_of([_mean_bits(study, one) for one in study.trained() if one.kind])


def _bits_difference(study: Study, first: Contestant, second: Contestant) -> Difference | None:
    seeds = sorted(first.runs.keys() & second.runs.keys())
    if not seeds:
        return None
    n = min(len(one.runs[seed].bits[study.split]) for one in (first, second) for seed in seeds)
    rows = [np.stack([one.runs[seed].bits[study.split][:n] for seed in seeds]) for one in (first, second)]
    pool = None if first.is_classic and second.is_classic else bits_pool(study)
    over_seeds = unpaired(_mean_bits(study, first), _mean_bits(study, second), pool) if len(seeds) >= LEAST_SEEDS else None
    return paired_bootstrap(*rows, seed=study.seed, num_resamples=study.num_resamples, over_seeds=over_seeds)


def _mean_bits(study: Study, one: Contestant) -> Sampled:
    means = {seed: float(run.bits[study.split].mean()) for seed, run in one.runs.items() if study.split in run.bits}
    return Sampled(means, dict.fromkeys(means, math.nan))


def trained_pairs(study: Study) -> list[tuple[Contestant, Contestant]]:
    """Return all pairs of trained models."""
    return list(itertools.combinations(study.trained(), 2))


def classic_pairs(study: Study) -> list[tuple[Contestant, Contestant]]:
    """Return each trained model with each classic density."""
    classic = [one for one in study.contestants if one.is_classic and one.is_model]
    return list(itertools.product(study.trained(), classic))


def _pairs_of_classics(study: Study) -> list[tuple[Contestant, Contestant]]:
    return list(itertools.combinations([one for one in study.contestants if one.is_classic and one.is_model], 2))


def _judged(
    study: Study,
    pairs: Sequence[tuple[Contestant, Contestant]],
    compare: Callable[[Contestant, Contestant], Difference | None],
    note: Callable[[Difference, Contestant, Contestant], str],
    *,
    higher_is_better: bool = False,
) -> list[Pair]:
    found = [compare(one, other) if matched(one, other, study.tolerance) else None for one, other in pairs]
    adjusted = iter(holm([one.p_value for one in found if one is not None]))
    judged = []
    for (first, second), one in zip(pairs, found, strict=True):
        if one is None:
            fair = matched(first, second, study.tolerance)
            why = "no spread is known" if fair else "budgets are not matched: no verdict"
            judged.append(Pair(first=first, second=second, found=None, p_value=1.0, outcome=None, note=why))
            continue
        p_value = next(adjusted)
        outcome = verdict(one, p_value, higher_is_better=higher_is_better)
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
