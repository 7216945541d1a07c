"""Curves over labels, confidence against accuracy, and how well foreign images are told."""

from __future__ import annotations

import numpy as np

from pipeline.contract import Context
from stages.common.plots import bar_chart, line_chart
from stages.image.generative_classifier.cells import RIVAL
from stages.image.generative_classifier.study import Study

CURVE_POINTS = 60


def draw(context: Context, study: Study) -> None:
    """Add all figures."""
    deep = [pair.first.name for pair in study.pairs if pair.second.name == RIVAL]
    deep = [*deep, RIVAL] if deep else []
    classical = [name for name in study.models if name not in deep]
    for names, title in ((deep, "trained networks"), (classical, "classical models")):
        _learning_curves(context, study, names, title)
    _reliability(context, study, deep or classical)
    _foreign(context, study)


def _learning_curves(context: Context, study: Study, names: list[str], title: str) -> None:
    shown = [name for name in names if name in study.curves]
    if not shown:
        return
    series = {}
    for name in shown:
        one = study.curves[name]
        series[name] = (list(one.num_labels), list(one.errors))
    slug = title.replace(" ", "_")
    path = line_chart(
        context.figures / f"errors_{slug}.svg",
        series,
        xlabel="labelled images of each class",
        ylabel="error on test",
        log_x=True,
        log_y=True,
        title=f"Errors by labels: {title}",
    )
    context.section.figure(path, f"Share of wrong answers on test, mean over seeds: {title}. Both axes are logarithmic.")
    fitted = {}
    for name in shown:
        one = study.curves[name]
        n = np.geomspace(one.num_labels.min(), one.num_labels.max(), CURVE_POINTS)
        fitted[name] = (list(n), list(one.a + one.b * n**-one.c))
    path = line_chart(
        context.figures / f"fits_{slug}.svg",
        fitted,
        xlabel="labelled images of each class",
        ylabel="a + b·n^−c",
        log_x=True,
        log_y=True,
        title=f"Fitted curves: {title}",
    )
    context.section.figure(
        path, "The fitted curves that crossovers and limits are read from; compare them with the points above."
    )


def _reliability(context: Context, study: Study, names: list[str]) -> None:
    for when, words in enumerate(("before", "after")):
        series = {"as it should be": ([0.0, 1.0], [0.0, 1.0])}
        for name in names:
            counts, confidence, accuracy = study.calibration[name].bins[when].T
            series[name] = (list(confidence[counts > 0]), list(accuracy[counts > 0]))
        path = line_chart(
            context.figures / f"reliability_{words}.svg",
            series,
            xlabel="confidence: largest p(c | x)",
            ylabel="share of right answers",
            title=f"Reliability, {words} temperature",
        )
        context.section.figure(
            path,
            f"Test images by confidence, {words} temperature: below the diagonal a classifier believes itself too much. The "
            "temperature of every second image was found on the others.",
        )


def _foreign(context: Context, study: Study) -> None:
    for name in sorted({one.foreign for one in study.detections}):
        found = [one for one in study.detections if one.foreign == name]
        slug = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
        path = bar_chart(
            context.figures / f"foreign_{slug}.svg",
            [f"{one.model}: {one.score}" for one in found],
            [one.value.mean for one in found],
            ylabel="AUROC (0.5: no idea, 1: always told)",
            title=f"Test images against: {name}",
            intervals=[(min(one.value.low, one.value.mean), max(one.value.high, one.value.mean)) for one in found],
        )
        context.section.figure(path, f"How well each score tells test images from foreign ones ({name}); below 0.5 it is fooled.")
