"""What the comparison shows: section, tables, `classifiers.json` and the card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import yaml

from pipeline.contract import Context, write_bytes, write_json
from stages.common.claims import Claim
from stages.common.images.grid import Grid
from stages.common.wording import short, with_interval
from stages.image.generative_classifier.classical import SVM
from stages.image.generative_classifier.metrics import over_seeds
from stages.image.generative_classifier.study import Model, Pair, Study

Row = list[str | int | float | bool | None]


def open_section(context: Context, study: Study) -> None:
    """Say what the stage is about and show the first table."""
    context.section.describe(
        title="Generative models as classifiers",
        idea="A model that knows how probable an image is for every class is a classifier: the class for which the image is most "
        "probable wins. Its rival learns only where one class ends and the next begins; which of them needs fewer labels, "
        "whose confidence can be believed, and who notices that an image is of no class at all, is measured here.",
        formula="p(c | x) = p(x | c)·p(c) / Σ p(x | c′)·p(c′)",
    )
    labels = sorted({labels for one in study.models.values() for labels in one.num_labels})
    context.section.table(
        "Errors by labels",
        ["model", "side", *(f"n = {n}" for n in labels)],
        [[one.name, one.side, *(_error(one, n) for n in labels)] for one in study.models.values()],
        caption="Share of wrong answers on test with n labelled images of each class, mean over seeds with the 95 % t "
        "interval over "
        "them. A seed chooses the images, the same for all models, and a smaller n takes a part of a larger one's. Empty: the "
        "model cannot be fitted to so few, or was not trained. No model was shown shifted or otherwise changed images.",
    )


def write_tables(context: Context, study: Study) -> None:
    """Add all further tables."""
    _pairs(context, study)
    _curves(context, study)
    _calibration(context, study)
    _faults(context, study)
    _foreign(context, study)
    _cost(context, study)


def write_claims(context: Context, claims: Sequence[Claim]) -> None:
    """Add the sentences with their outcomes."""
    context.section.table(
        "What is said of generative classifiers, tested",
        ["claim", "outcome", "figures", "statistic and rule"],
        [[claim.sentence, claim.outcome, claim.evidence, f"{claim.statistic}. Holds if: {claim.rule}."] for claim in claims],
        caption="Outcomes follow from the rule alone: a claim holds only if every pair is clear, and does not hold if one is "
        "clearly otherwise. Clear means that a 95 % interval lies on one side. Not corrected for the number of claims.",
    )


def write_files(context: Context, study: Study, claims: Sequence[Claim], grid: Grid) -> None:
    """Write `classifiers.json` for programs and `card.md` for people."""
    errors = {
        name: {str(n): one.errors([n])[0].mean(axis=1).tolist() for n in one.num_labels} for name, one in study.models.items()
    }
    detections = [
        {"model": one.model, "score": one.score, "foreign": one.foreign, **asdict(one.value)} for one in study.detections
    ]
    values = {
        "error_by_labels_and_seed": errors,
        "pairs": [_pair_json(pair) for pair in study.pairs],
        "curves": {
            name: {"a": one.a, "b": one.b, "c": one.c, "a_interval": one.a_interval} for name, one in study.curves.items()
        },
        "calibration": {
            name: {"error": one.error, "log_loss": one.log_loss, "temperature": one.temperature}
            for name, one in study.calibration.items()
        },
        "faults": [{"model": model, "set": name, "error": float(wrong.mean())} for (model, name), wrong in study.faults.items()],
        "detections": detections,
        "claims": [asdict(claim) for claim in claims],
    }
    write_json(context.directory / "classifiers.json", values)
    num_test = next(iter(study.faults.values())).shape[1]
    lines = [
        f"---\n{yaml.safe_dump({'license': grid.license, 'tags': ['groundup', 'comparison', 'image-classification']})}---",
        f"# Generative models as classifiers of {grid.name}",
        "",
        f"{len(study.models)} classifiers, {num_test} test images.",
        "",
        *(f"- {claim.sentence}: **{claim.outcome}** ({claim.evidence})" for claim in claims),
        "",
        "Limits: one set of small images, one budget, settings chosen by hand for the networks. `classifiers.json` holds the "
        "numbers.",
    ]
    write_bytes(context.directory / "card.md", ("\n".join(lines) + "\n").encode())


def _error(model: Model, labels: int) -> str | None:
    if labels not in model.num_labels:
        return None
    means = model.errors([labels])[0].mean(axis=1)
    if len(means) < 2:
        return short(float(means[0]))
    low, high = over_seeds(means)
    return f"{short(float(means.mean()))} [{short(low)}, {short(high)}]"


def _pairs(context: Context, study: Study) -> None:
    labels = sorted({n for pair in study.pairs for n in pair.num_labels})
    rows: list[Row] = []
    for pair in study.pairs:
        cells = [f"{with_interval(pair.gaps[n])}: {_words(pair, n)}" if n in pair.gaps else None for n in labels]
        rows.append([pair.first.name, pair.second.name, *cells, _crossing(pair)])
    context.section.table(
        "Generative minus discriminative error",
        ["generative", "discriminative", *(f"n = {n}" for n in labels), "n* where the discriminative overtakes"],
        rows,
        caption="Below 0 the generative model is better. Both of a pair learned from the same images and answer about the "
        "same ones. "
        "Intervals of 95 % over test images and, from three seeds on, over seeds as well, whichever is wider; a verdict needs "
        "p < 0.05 "
        "after Holm's correction over the numbers of labels, otherwise the two are not separable, which does not mean equal. "
        "n* is "
        "where the fitted curves cross inside the numbers of labels tried; none: fewer than 95 % of the resamples have a "
        "crossing.",
    )


def _words(pair: Pair, labels: int) -> str:
    outcome = pair.verdicts[labels]
    return outcome if outcome == "not separable" else f"generative is {outcome}"


def _crossing(pair: Pair) -> str:
    found = pair.crossing
    if found is None:
        return "too few numbers of labels"
    if found.place is None or found.interval is None:
        return f"none (in {found.share:.0%} of the resamples)"
    return f"{short(found.place)} [{short(found.interval[0])}, {short(found.interval[1])}]"


def _curves(context: Context, study: Study) -> None:
    if study.curves:
        rows: list[Row] = [
            [name, f"{short(one.a)} [{short(one.a_interval[0])}, {short(one.a_interval[1])}]", short(one.b), short(one.c)]
            for name, one in study.curves.items()
        ]
        context.section.table(
            "Fitted curves: error(n) = a + b·n^−c",
            ["model", "a, error that it tends to", "b", "c, how fast"],
            rows,
            caption="a with its 95 % interval over test images and seeds. It is an extrapolation from few points: where it "
            "reaches "
            "from 0 to the last error, the points do not tell.",
        )


def _calibration(context: Context, study: Study) -> None:
    rows: list[Row] = [
        [
            name,
            study.models[name].num_labels[-1],
            short(one.error[0]),
            short(one.error[1]),
            short(one.log_loss[0]),
            short(one.log_loss[1]),
            short(one.temperature),
        ]
        for name, one in study.calibration.items()
    ]
    context.section.table(
        "Can the confidence be believed?",
        ["model", "n", "ECE", "ECE, tempered", "log-loss, nat", "log-loss, tempered", "temperature"],
        rows,
        caption="On test at the most labels, mean over seeds. A temperature above 1 says that the classifier believed itself too "
        "much: a density adds up the evidence of all pixels, and one that takes them for independent counts it many times. "
        f"Temperatures are found on the other half of the test images. The {SVM} has no probabilities; before temperature its "
        "figures mean nothing.",
    )


def _faults(context: Context, study: Study) -> None:
    names = sorted({name for _, name in study.faults}, key=lambda name: (name != "test", name))
    if len(names) > 1:
        asked = [name for name in study.models if (name, names[1]) in study.faults]
        rows: list[Row] = [[model, *(short(float(study.faults[model, name].mean())) for name in names)] for model in asked]
        context.section.table(
            "Errors on corrupted images",
            ["model", *names],
            rows,
            caption="The same test images, corrupted; no model was trained on such images. Mean over seeds at the most labels.",
        )


def _foreign(context: Context, study: Study) -> None:
    if study.detections:
        names = sorted({one.foreign for one in study.detections})
        keys = list(dict.fromkeys((one.model, one.score) for one in study.detections))
        found = {(one.model, one.score, one.foreign): with_interval(one.value) for one in study.detections}
        rows: list[Row] = [[*key, *(found.get((*key, name)) for name in names)] for key in keys]
        context.section.table(
            "Who notices foreign images?",
            ["model", "score", *names],
            rows,
            caption="AUROC with 95 % intervals over images and seeds: the chance that a test image scores higher than a "
            "foreign one. "
            "A density may find simple foreign images more probable than real ones (Nalisnick et al., arXiv 1810.09136): "
            "then it is below 0.5.",
        )


def _cost(context: Context, study: Study) -> None:
    rows: list[Row] = []
    for one in study.models.values():
        cells = [cell for (n, _), cell in one.cells.items() if n == one.num_labels[-1]]
        first, noise = cells[0], float(np.mean([cell.noise for cell in cells]))
        if first.training_flops and first.flops_for_one_image:
            flops = (first.training_flops / 1e12, first.flops_for_one_image / 1e6)
            rows.append([one.name, *map(short, flops), first.kind, short(noise)])
    if rows:
        context.section.table(
            "What an answer costs",
            ["model", "training, TFLOP", "one answer, MFLOP", "log p(x | c)", "noise of the log odds, nat"],
            rows,
            caption="Training is matched, answers are not: Bayes' rule asks the model once for every class and draw. The "
            "noise is the "
            "standard deviation of the log odds of the two likeliest classes over other draws, at the most labels.",
        )


def _pair_json(pair: Pair) -> dict[str, Any]:
    gaps = {str(n): {**_finite(asdict(gap)), "verdict": pair.verdicts[n]} for n, gap in pair.gaps.items()}
    crossing = None if pair.crossing is None else asdict(pair.crossing)
    return {"generative": pair.first.name, "discriminative": pair.second.name, "gaps": gaps, "crossover": crossing}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}
