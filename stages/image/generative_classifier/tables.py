"""The tables of the comparison: errors, what answers cost, differences, curves, confidence, corrupted and foreign images."""

from __future__ import annotations

from pipeline.contract import Context
from stages.common.verdicts import Estimate
from stages.common.wording import short, with_interval
from stages.image.generative_classifier.cells import RIVAL
from stages.image.generative_classifier.classical import SVM
from stages.image.generative_classifier.estimates import share
from stages.image.generative_classifier.study import Pair, Study

DENSITY = "p(x\u00a0|\u00a0c)"
Row = list[str | int | float | bool | None]


def write_errors(context: Context, study: Study) -> None:
    """Add the first table."""
    labels = sorted({labels for one in study.models.values() for labels in one.num_labels})
    context.section.table(
        "Errors by labels",
        ["model", "side", *(f"n = {n}" for n in labels), "one answer, MFLOP", "one answer, ms"],
        [
            [
                name,
                one.side,
                *(_estimate(study.errors.get((name, n))) for n in labels),
                _count(study.costs[name].answer_flops, 1e6),
                short(study.costs[name].latency_ms),
            ]
            for name, one in study.models.items()
        ],
        caption="Share of wrong answers on test with n labelled images of each class: mean over seeds and 95 % interval over "
        "test images (Wilson) and, from three seeds on, over seeds (Student), whichever is wider. A seed chooses the labelled "
        "images, the same for all models, and a smaller n takes a part of a larger one's. Empty: the model cannot be fitted to "
        "so few, or nothing was trained or counted there. The last two columns are the price of naming one image: counted "
        "operations, and wall time on the machine of the run when all test images are asked about at once. No model was shown "
        "shifted or otherwise changed images.",
    )


def write_further(context: Context, study: Study) -> None:
    """Add all further tables."""
    _cost(context, study)
    _pairs(context, study)
    _curves(context, study)
    _calibration(context, study)
    _faults(context, study)
    _foreign(context, study)


def _estimate(found: Estimate | None) -> str | None:
    return None if found is None else with_interval(found)


def _count(value: float | None, unit: float) -> str | None:
    return None if value is None else short(value / unit)


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
        return f"none ({100 * found.share:.0f} % of the resamples have one)"
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
            *(with_interval(found) for found in (*one.error, *one.log_loss)),
            short(one.temperature),
        ]
        for name, one in study.calibration.items()
    ]
    context.section.table(
        "Can the confidence be believed?",
        ["model", "n", "ECE", "ECE, tempered", "log-loss, nat", "log-loss, tempered, nat", "temperature"],
        rows,
        caption="On test at the most labels: means over seeds with 95 % intervals over images and seeds. ECE, the expected "
        "calibration error, is the mean distance between confidence and share of right answers over tenths of confidence; with "
        "few images it lies above 0 even where confidence fits. Log-loss is the mean of −ln p of the true class. A temperature "
        "above 1 says that the classifier believed itself too much: a density adds up the evidence of all pixels, and one that "
        "takes them for independent counts it many times. Each training's temperature was found on validation images, never on "
        f"test; shown is the geometric mean. The {SVM} has no probabilities; before temperature its figures mean nothing.",
    )


def _faults(context: Context, study: Study) -> None:
    names = sorted({name for _, name in study.faults}, key=lambda name: (name != "test", name))
    if len(names) > 1:
        asked = [name for name in study.models if (name, names[1]) in study.faults]
        rows: list[Row] = [[model, *(with_interval(share(study.faults[model, name])) for name in names)] for model in asked]
        context.section.table(
            "Errors on corrupted images",
            ["model", *names],
            rows,
            caption="Share of wrong answers on the same test images, corrupted; no model was trained on such images. Means over "
            "seeds at the most labels, with 95 % intervals over images and seeds.",
        )


def _foreign(context: Context, study: Study) -> None:
    if study.detections:
        names = sorted({one.foreign for one in study.detections})
        keys = list(dict.fromkeys((one.model, one.score) for one in study.detections))
        found = {(one.model, one.score, one.foreign): with_interval(one.value) for one in study.detections}
        rows: list[Row] = [
            [model, score.replace(" | ", "\u00a0|\u00a0"), *(found.get((model, score, name)) for name in names)]
            for model, score in keys
        ]
        context.section.table(
            "Who notices foreign images?",
            ["model", "score", *names],
            rows,
            caption="AUROC, the chance that a test image scores higher than a foreign one, with 95 % intervals over images and "
            "seeds: 1 always told, 0.5 no idea, below 0.5 fooled. [1, 1]: among these images no pair was the other way. "
            "A density may find simple foreign images more probable than real ones (Nalisnick et al., arXiv 1810.09136). "
            "Some halves of two classes do fit together, and may fool the best.",
        )


def _cost(context: Context, study: Study) -> None:
    trained = {name: one for name, one in study.costs.items() if one.training_flops and one.answer_flops}
    if not trained:
        return
    rival = trained[RIVAL].answer_flops if RIVAL in trained else None
    rows: list[Row] = []
    for name, one in trained.items():
        assert one.training_flops is not None
        assert one.answer_flops is not None
        times = None if rival is None else short(one.answer_flops / rival)
        figures = [short(one.answer_flops / 1e6), times, short(one.latency_ms), short(one.noise) if one.noise else None]
        kind = "none is needed" if one.kind == "discriminative" else one.kind
        rows.append([name, short(one.training_flops / 1e12), f"{one.parameters:,}", *figures, kind, one.detail])
    context.section.table(
        "What an answer costs",
        [
            "model",
            "training, TFLOP",
            "parameters",
            "one answer, MFLOP",
            f"times {RIVAL}",
            "one answer, ms",
            "noise of the log odds, nat",
            f"kind of {DENSITY}",
            "how it is computed",
        ],
        rows,
        caption="Training is matched, answers are not: Bayes' rule asks the model once for every class and draw. It wants p(x | "
        "c) and gets a lower bound or a numerical estimate of it; where the bound is looser for one class than for another, the "
        "rule errs, and no more draws of noise show it. The noise is what other draws would change: the standard deviation of "
        "the log odds of the two likeliest classes, at the most labels. The prior p(c) is the share of the class among the "
        "labelled images.",
    )
