"""Verdicts: two models held against each other, corrected for the number of pairs, and the best of a column."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stages.common.verdicts import LEAST_SEEDS, Difference, Sampled, Verdict, holm, paired_bootstrap, verdict
from stages.image.compare.contrasts import Pool, pool_of, unpaired
from stages.image.compare.models import Contestant, matched
from stages.image.compare.study import COLUMNS, COSTS, Study

BOUNDS = ("lower bound", "numerical")
"""Kinds of bits that bound the model's own from above; a solver's density, too, is that of an image with noise added."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models compared.

    Attributes:
        key: of the column.
        found: first minus second; None where the two may not be compared.
        p_value: with Holm's correction over the pairs of its table.
        outcome: of the first model.
        note: what the reader must know of the pair.
    """

    key: str
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
        study, key, pairs, lambda one, other: study.difference(one, other, key), _no_note, higher_is_better=higher_is_better
    )


def compare_bits(study: Study, pairs: Sequence[tuple[Contestant, Contestant]]) -> list[Pair]:
    """Compare the bits per dimension of pairs on the same images; models without a likelihood are left out."""
    known = [(one, other) for one, other in pairs if one.kind and other.kind]
    found = _judged(study, "bits_per_dim", known, lambda one, other: bits_difference(study, one, other), _kinds)
    return [_beyond_the_solver(pair) for pair in found]


def bits_difference(study: Study, first: Contestant, second: Contestant) -> Difference:
    """Return first minus second in bits per dimension, over the images that both were measured on."""
    labels = first.label, second.label
    if labels not in study.known_bits:
        study.known_bits[labels] = _bits_difference(study, first, second)
    return study.known_bits[labels]


def _beyond_the_solver(pair: Pair) -> Pair:
    """Return the pair; what the solvers of numerical likelihoods may have made is no difference of the models."""
    error = pair.first.solver_error + pair.second.solver_error
    if pair.found is None or abs(pair.found.mean) > error or error == 0:
        return pair
    return replace(pair, outcome="not separable", note=f"within the error of the solver, {error:.4f} bit/dim")


def bits_pool(study: Study) -> Pool | None:
    """Return the spread of the bits from seed to seed, pooled over the trained models with a likelihood."""
    return pool_of([_mean_bits(study, one) for one in study.trained() if one.kind])


def _bits_difference(study: Study, first: Contestant, second: Contestant) -> Difference:
    # Each over its own trainings: equal seeds of two families share nothing (`contrasts`), but all share the images.
    bits = [[run.bits[study.split] for run in one.runs.values()] for one in (first, second)]
    num_images = min(len(found) for trainings in bits for found in trainings)
    means = [np.stack([found[:num_images] for found in trainings]).mean(axis=0, keepdims=True) for trainings in bits]
    num_seeds = min(map(len, bits))
    pool = None if first.is_classic and second.is_classic else bits_pool(study)
    over_seeds = unpaired(_mean_bits(study, first), _mean_bits(study, second), pool) if num_seeds >= LEAST_SEEDS else None
    found = paired_bootstrap(*means, seed=study.seed, num_resamples=study.num_resamples, over_seeds=over_seeds)
    return replace(found, num_seeds=num_seeds)


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


def best(study: Study, key: str) -> str | None:
    """Return the label of the model that is better than every other in a column, by the verdicts of its tables; else None.

    Other ways to draw from a model are no rivals of it, and have no verdict. What a model costs is compared among trained ones.
    """
    models = study.trained() if key in COSTS else [one for one in study.contestants if one.is_model]
    rivals = [one for one in models if study.is_matched(one) and study.number(one.label, key)]
    if COLUMNS[key].higher_is_better is None or len(rivals) < 2:
        return None
    groups = (trained_pairs(study), classic_pairs(study), _pairs_of_classics(study))
    compared = compare_bits if key == "bits_per_dim" else lambda study, pairs: compare_pairs(study, key, pairs)
    beaten: dict[str, set[str]] = {one.label: set() for one in rivals}
    for pair in itertools.chain.from_iterable(compared(study, pairs) for pairs in groups):
        winner, loser = (pair.first, pair.second) if pair.outcome == "better" else (pair.second, pair.first)
        if pair.outcome in ("better", "worse") and winner.label in beaten:
            beaten[winner.label].add(loser.label)
    return next((label for label, losers in beaten.items() if beaten.keys() - {label} <= losers), None)


def _pairs_of_classics(study: Study) -> list[tuple[Contestant, Contestant]]:
    return list(itertools.combinations([one for one in study.contestants if one.is_classic and one.is_model], 2))


def _judged(
    study: Study,
    key: str,
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
            judged.append(Pair(key=key, first=first, second=second, found=None, p_value=1.0, outcome=None, note=why))
            continue
        p_value = next(adjusted)
        outcome = verdict(one, p_value, higher_is_better=higher_is_better)
        judged.append(
            Pair(key=key, first=first, second=second, found=one, p_value=p_value, outcome=outcome, note=note(one, first, second))
        )
    return judged


def _kinds(found: Difference, first: Contestant, second: Contestant) -> str:
    """Say what a difference means when bits are bounds: a bound on the likelihood from below is one on the bits from above."""
    worse, better = (second, first) if found.mean < 0 else (first, second)
    if worse.kind not in BOUNDS:
        return "holds for the models: the bound is on the better side" if better.kind in BOUNDS else "both exact"
    return "of two bounds: the worse model may be better than its bound" if better.kind in BOUNDS else "the worse is a bound"


def _no_note(found: Difference, first: Contestant, second: Contestant) -> str:  # noqa: ARG001
    return ""
