"""What is said of generative classifiers, as tests; a finding for each pair, and an outcome by rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.common.claims import Claim, Finding, conclude
from stages.common.images.image_sets import TEST
from stages.common.verdicts import paired_bootstrap
from stages.common.wording import with_interval
from stages.image.generative_classifier.cells import RIVAL
from stages.image.generative_classifier.study import Pair, Study

NO_PAIR = "there is no such pair"
NO_SETS = "no model was asked about such images (class_sets: all)"


def all_claims(study: Study) -> list[Claim]:
    """Return every claim with its outcome."""
    deep = [pair for pair in study.pairs if pair.second.name == RIVAL]
    classical = [pair for pair in study.pairs if pair.second.name != RIVAL]
    claims = []
    for pairs, words in ((deep, "deep models at equal training FLOPs"), (classical, "classical pairs")):
        claims += [_few_labels(pairs, words), _many_labels(pairs, words)]
    return [*claims, _confidence(study, deep), _faults(study, deep), _foreign(study, deep)]


def _few_labels(pairs: Sequence[Pair], words: str) -> Claim:
    return conclude(
        f"With few labels a generative model is ahead ({words})",
        "error of the generative model minus that of the discriminative one, on test, at the fewest labels that both have"
        f"{_numbers(pairs, 0)}",
        "all intervals lie below 0",
        [_gap(pair, pair.num_labels[0]) for pair in pairs if pair.num_labels],
        "below",
        missing=NO_PAIR,
    )


def _many_labels(pairs: Sequence[Pair], words: str) -> Claim:
    return conclude(
        f"With many labels a discriminative model is ahead ({words})",
        f"the same difference at the most labels{_numbers(pairs, -1)}",
        "all intervals lie above 0",
        [_gap(pair, pair.num_labels[-1]) for pair in pairs if pair.num_labels],
        "above",
        missing=NO_PAIR,
    )


def _numbers(pairs: Sequence[Pair], place: int) -> str:
    """Return ` (n = 2)`; pairs of models that cannot be fitted to so few have another number."""
    found = sorted({pair.num_labels[place] for pair in pairs if pair.num_labels})
    return f" (n = {', '.join(map(str, found))})" if found else ""


def _gap(pair: Pair, labels: int) -> Finding:
    found = pair.gaps[labels]
    return Finding.of(f"{pair.first.name} − {pair.second.name}: {with_interval(found)}", found, 0.0)


def _confidence(study: Study, deep: Sequence[Pair]) -> Claim:
    findings = []
    for pair in deep:
        wasted = [study.calibration[one.name].wasted for one in (pair.first, pair.second)]
        found = paired_bootstrap(*wasted, seed=study.config.seed)
        findings.append(Finding.of(f"{pair.first.name} − {RIVAL}: {with_interval(found)} nat", found, 0.0))
    return conclude(
        "Bayes' rule gives probabilities that can be believed more than a softmax's",
        "log-loss on test that wrong confidence costs (as it is, minus after a temperature from validation images), at the most "
        "labels, generative minus discriminative",
        "all intervals lie below 0",
        findings,
        "below",
        missing=NO_PAIR,
    )


def _faults(study: Study, deep: Sequence[Pair]) -> Claim:
    findings = []
    for pair in deep:
        rises = [_rise(study, one.name) for one in (pair.first, pair.second)]
        if rises[0] is not None and rises[1] is not None:
            found = paired_bootstrap(rises[0], rises[1], seed=study.config.seed)
            findings.append(Finding.of(f"{pair.first.name} − {RIVAL}: {with_interval(found)}", found, 0.0))
    return conclude(
        "A generative classifier loses less on corrupted images",
        "rise of the error from test to corrupted test images, mean over the faults, generative minus discriminative",
        "all intervals lie below 0",
        findings,
        "below",
        missing=NO_SETS,
    )


def _rise(study: Study, model: str) -> np.ndarray | None:
    """Return the mean error on the corrupted sets minus that on test, of each seed and image, (S, N)."""
    corrupted = [wrong for (name, one), wrong in study.faults.items() if name == model and one != TEST]
    return np.mean(corrupted, axis=0) - study.faults[model, TEST] if corrupted else None


def _foreign(study: Study, deep: Sequence[Pair]) -> Claim:
    findings = []
    for pair in deep:
        own = {one.foreign: one for one in study.detections if one.model == pair.first.name and one.score == "log p(x)"}
        rival = {one.foreign: one for one in study.detections if one.model == RIVAL}
        for name in own.keys() & rival.keys():
            found = own[name].minus(rival[name])
            findings.append(Finding.of(f"{pair.first.name} − {RIVAL}, {name}: {with_interval(found)}", found, 0.0))
    return conclude(
        "log p(x) tells foreign images better than the largest p(c | x) of a network does",
        "AUROC of log p(x) minus AUROC of the rival's largest probability",
        "all intervals lie above 0",
        sorted(findings, key=lambda one: one.words),
        "above",
        missing=NO_SETS,
    )
