"""Curves over labels, errors against what an answer costs, confidence against accuracy, and how well foreign images are told."""

from __future__ import annotations

import numpy as np

from pipeline.contract import Context
from stages.common.charts import Point, scatter_chart
from stages.common.dots import Dot, Series, fitted_chart, joined_chart, rows_chart
from stages.common.images.image_sets import TEST
from stages.common.verdicts import Estimate
from stages.image.generative_classifier.cells import RIVAL
from stages.image.generative_classifier.estimates import share
from stages.image.generative_classifier.study import Study

CURVE_POINTS = 60


def draw(context: Context, study: Study) -> None:
    """Add all figures; a model has one colour and one shape in all of them."""
    deep = [pair.first.name for pair in study.pairs if pair.second.name == RIVAL]
    deep = [*deep, RIVAL] if deep else []
    classical = [name for name in study.models if name not in deep]
    for names, title in ((deep, "trained networks"), (classical, "classical models")):
        _learning_curves(context, study, names, title)
    _answers(context, study, deep)
    _reliability(context, study, deep or classical)
    _faults(context, study, deep or classical)
    _foreign(context, study, deep or classical)


def _learning_curves(context: Context, study: Study, names: list[str], title: str) -> None:
    if not names:
        return
    curves = {}
    for number, name in enumerate(names):
        n = study.models[name].num_labels
        found, line = [study.errors[name, labels] for labels in n], None
        if name in study.curves:
            one, xs = study.curves[name], np.geomspace(n[0], n[-1], CURVE_POINTS)
            line = (xs.tolist(), (one.a + one.b * xs**-one.c).tolist())
        intervals = [(each.low, each.high) for each in found]
        curves[name] = Series(number=number, xs=n, means=[each.mean for each in found], intervals=intervals, line=line)
    path = fitted_chart(
        context.figures / f"errors_{title.replace(' ', '_')}.svg",
        curves,
        xlabel="labelled images of each class",
        ylabel="share of wrong answers on test",
    )
    context.section.figure(
        path,
        f"Errors by labels, {title}: means over seeds with 95 % intervals, and the fitted curves a + b·n^−c that limits and "
        "crossovers are read from. Both axes are logarithmic; points of one n are set apart to be seen. Down is better.",
    )


def _answers(context: Context, study: Study, names: list[str]) -> None:
    points = {}
    for number, name in enumerate(names):
        most = study.models[name].num_labels[-1]
        cost, error = study.costs[name].answer_flops, study.errors[name, most]
        if cost is not None:
            interval = (error.low, error.high)
            points[name] = Point(number=number, x=cost / 1e6, y=error.mean, y_interval=interval)
    if points:
        path = scatter_chart(
            context.figures / "answers.svg",
            points,
            xlabel="counted FLOPs of one answer (MFLOP)",
            ylabel="share of wrong answers on test",
            log_x=True,
        )
        context.section.figure(
            path,
            f"What an answer costs and how often it is wrong, n = {most}. All were trained with equal FLOPs; but Bayes' "
            "rule asks its model once for every class and draw, and the network answers for all classes at once. Left is "
            "cheaper, down is better.",
        )


def _reliability(context: Context, study: Study, names: list[str]) -> None:
    for when, words in enumerate(("before", "after")):
        curves = {}
        for number, name in enumerate(names):
            confidence, right, low, high = study.calibration[name].groups[when].T.tolist()
            curves[name] = Series(number=number, xs=confidence, means=right, intervals=list(zip(low, high, strict=True)))
        path = joined_chart(
            context.figures / f"reliability_{words}.svg",
            curves,
            xlabel=f"confidence {words} temperature: largest p(c | x), mean of a group",
            ylabel="share of right answers",
        )
        context.section.figure(
            path,
            f"Reliability {words} temperature: the test images in {len(confidence)} groups of one size, from the answers that a "
            "classifier is least sure of to the surest, with 95 % intervals. On the dotted line the share is as the confidence "
            "says; below it a classifier believes itself too much, above it too little."
            + (" The temperature was found on validation images." if words == "after" else ""),
        )


def _faults(context: Context, study: Study, names: list[str]) -> None:
    sets = sorted({one for _, one in study.faults}, key=lambda one: (one != TEST, one))
    rows = {
        one: {
            name: _dot(number, share(study.faults[name, one])) for number, name in enumerate(names) if (name, one) in study.faults
        }
        for one in sets
    }
    if len(rows) > 1:
        path = rows_chart(context.figures / "faults.svg", rows, xlabel="share of wrong answers")
        context.section.figure(
            path, "Errors on test images and on the same ones corrupted, at the most labels, with 95 % intervals. Left is better."
        )


def _foreign(context: Context, study: Study, names: list[str]) -> None:
    rows: dict[str, dict[str, Dot]] = {}
    for one in study.detections:
        if one.model in names:
            rows.setdefault(f"{one.foreign}\nby {one.score}", {})[one.model] = _dot(names.index(one.model), one.value)
    if rows:
        path = rows_chart(
            context.figures / "foreign.svg",
            dict(sorted(rows.items())),
            xlabel="AUROC (0.5: no idea, 1: always told)",
            vlines=(0.5,),
        )
        context.section.figure(
            path,
            "How well each score tells test images from foreign ones, at the most labels, with 95 % intervals: images that are "
            "made of test images, and images of something else. Left of the dotted line a score is fooled. A network for p(c | "
            "x) has no p(x).",
        )


def _dot(number: int, found: Estimate) -> Dot:
    return Dot(number=number, mean=found.mean, interval=(found.low, found.high))
