"""Curves over labels, errors against what an answer costs, confidence against accuracy, and how well foreign images are told."""

from __future__ import annotations

import numpy as np

from pipeline.contract import Context
from stages.common.charts import Fitted, Point, fitted_chart, scatter_chart
from stages.common.plots import bar_chart, line_chart
from stages.image.generative_classifier.cells import RIVAL
from stages.image.generative_classifier.study import Study

CURVE_POINTS = 60
LEAST_IN_A_BIN = 10
"""Answers that a bin of confidence must hold to be drawn: fewer say next to nothing of the share of right ones."""


def draw(context: Context, study: Study) -> None:
    """Add all figures."""
    deep = [pair.first.name for pair in study.pairs if pair.second.name == RIVAL]
    deep = [*deep, RIVAL] if deep else []
    classical = [name for name in study.models if name not in deep]
    for names, title in ((deep, "trained networks"), (classical, "classical models")):
        _learning_curves(context, study, names, title)
    _answers(context, study, deep)
    _reliability(context, study, deep or classical)
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
        curves[name] = Fitted(number=number, xs=n, means=[each.mean for each in found], intervals=intervals, line=line)
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
            points[f"{name}, n = {most}"] = Point(number=number, x=cost / 1e6, y=error.mean, y_interval=interval)
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
            "What an answer costs and how often it is wrong, at the most labels. All were trained with equal FLOPs; but Bayes' "
            "rule asks its model once for every class and draw, and the network answers for all classes at once. Left is "
            "cheaper, down is better.",
        )


def _reliability(context: Context, study: Study, names: list[str]) -> None:
    for when, words in enumerate(("before", "after")):
        series = {"as it should be": ([0.0, 1.0], [0.0, 1.0])}
        for name in names:
            counts, confidence, accuracy = study.calibration[name].bins[when].T
            enough = counts >= LEAST_IN_A_BIN
            series[name] = (list(confidence[enough]), list(accuracy[enough]))
        path = line_chart(
            context.figures / f"reliability_{words}.svg",
            series,
            xlabel="confidence: largest p(c | x), mean of a tenth of its range",
            ylabel="share of right answers",
            title=f"Reliability, {words} temperature",
        )
        context.section.figure(
            path,
            f"Test images by confidence, {words} temperature, answers of all seeds together: below the diagonal a classifier "
            f"believes itself too much. A tenth of the range with fewer than {LEAST_IN_A_BIN} answers is not drawn."
            + (" The temperature was found on validation images." if words == "after" else ""),
        )


def _foreign(context: Context, study: Study, names: list[str]) -> None:
    for foreign in dict.fromkeys(one.foreign for one in study.detections):
        found = [one for one in study.detections if one.foreign == foreign and one.model in names]
        slug = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in foreign)
        values = [one.value for one in found]
        path = bar_chart(
            context.figures / f"foreign_{slug}.svg",
            [f"{one.model}: {one.score}" for one in found],
            [value.mean for value in values],
            ylabel="AUROC (0.5: no idea, 1: always told)",
            title=f"Test images against: {foreign}",
            intervals=[(value.low, value.high) for value in values],
        )
        context.section.figure(
            path, f"How well each score tells test images from foreign ones ({foreign}); below 0.5 it is fooled."
        )
