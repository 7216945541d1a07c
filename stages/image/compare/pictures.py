"""Pictures of the comparison: sheets of images of all models, curves over the budget, quality against what it costs.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.contract import Context
from stages.common.charts import Band, Point, band_chart, interval_chart, scatter_chart
from stages.common.images.pictures import named_rows
from stages.common.metrics.memorisation import nearest
from stages.common.verdicts import Estimate, Sampled, estimate
from stages.image.compare.config import Config
from stages.image.compare.contrasts import logarithms
from stages.image.compare.models import SHARES, Contestant
from stages.image.compare.study import Study

STRIP_IMAGES = 3
"""Images of each share of the budget in the film strip."""
SUSPECTS = 6
"""Samples of each model that are shown beside their nearest training image."""


def draw_sheets(config: Config, context: Context, study: Study, train: Tensor, real: Tensor) -> None:
    """Add the sheets: samples side by side, training as a film strip, samples beside what they lie nearest to."""
    levels, columns = study.grid.levels, config.columns
    rows = {one.label: _first_samples(one)[:columns] for one in study.contestants}
    path = named_rows(rows | {_real(study): real[:columns]}, levels, context.figures / "samples.png")
    context.section.figure(
        path,
        "Samples of all models, drawn from the averaged weights after the last step of the first seed, and real images in the "
        "last row. None was chosen.",
    )
    strips = {one.label: strip for one in study.contestants if one.is_model and (strip := _film_strip(one)) is not None}
    if strips:
        headings = [share if place == 0 else "" for share in SHARES for place in range(STRIP_IMAGES)]
        path = named_rows(strips, levels, context.figures / "film_strip.png", headings=headings)
        context.section.figure(
            path,
            f"Training as a film strip: the same {STRIP_IMAGES} random starts after an eighth, a quarter, a half and all of the "
            "budget, as stops of one training whose learning rate falls towards the end.",
        )
    rows = {one.label: _suspects(_first_samples(one), train) for one in study.contestants if one.is_model}
    rows[_real(study)], headings = _suspects(real, train), ["new", "train"] * SUSPECTS
    path = named_rows(rows, levels, context.figures / "nearest.png", headings=headings)
    context.section.figure(
        path,
        f"The {SUSPECTS} samples of each model that lie nearest to a training image in pixels, each beside it: these are the "
        "suspects, chosen by distance. Unseen real images, in the last row, say how alike two images may be by chance.",
    )


def draw_charts(context: Context, study: Study) -> None:
    """Add the charts: distances, curves over the budget and over seconds, against latency and against bits per dimension."""
    _distance_bars(context, study)
    _curves(context, study, "training_tflop", "training so far (TFLOP, counted)", "anytime", _ANYTIME)
    _curves(context, study, "cpu_seconds", "training so far (CPU s)", "cpu_seconds", _SECONDS)
    _calls(context, study)
    _scatter(context, study, "latency_ms_per_image", "latency (ms/image)", "latency", _LATENCY, log_x=True)
    _scatter(context, study, "bits_per_dim", "bits per dimension (bit/dim)", "likelihood", _BITS, log_x=False)


_BANDS = (
    "Bands are 95 % intervals of the distance's logarithm, over seeds where there are three or more, else over draws of samples."
)
_CALLS = (
    "Quality against the number of times that the network is called for one sample: the same trained models sampled with fewer "
    "steps, mean over the seeds; the last point of a curve is the number that all other figures stand on. A family that draws in "
    f"one call has no curve. {_BANDS}"
)
_ANYTIME = (
    "Quality against compute: the distance to real images after an eighth, a quarter, a half and all of the budget, mean over "
    "the seeds. The points on the way are stops of one training whose learning rate falls along a cosine over the whole budget, "
    "so it has not fallen there yet: they are not what a model trained for that budget alone would reach. Where curves cross, "
    f"the order on the way is another one than at the end. {_BANDS}"
)
_SECONDS = (
    "The same against processor seconds: equal FLOPs are not equal seconds, for small operations keep a processor waiting. "
    "The seconds depend on the machine, the FLOPs do not."
)
_LATENCY = (
    "Quality against the time that one sample takes, in a batch of 64. Down is better, left is faster. Other stages may have run "
    "beside the measurement (--jobs), which makes times longer and less even."
)
_BITS = (
    "Two ways to be good: bits per dimension say how well a model predicts every pixel, the distance how real its samples look. "
    "Were they one thing, the points would lie on a rising line. The kind of each number of bits stands in the table."
)


def _real(study: Study) -> str:
    return f"real ({study.split})"


def _first_samples(one: Contestant) -> Tensor:
    return next(iter(one.samples().values()))


def _film_strip(one: Contestant) -> Tensor | None:
    """Return the first images of each share, one share after the other; None where the training kept none."""
    run = next(iter(one.runs.values()))
    if not all(share in run.samples for share in SHARES):
        return None
    return torch.cat([run.samples[share][:STRIP_IMAGES] for share in SHARES])


def _suspects(samples: Tensor, train: Tensor) -> Tensor:
    """Return the nearest samples, each followed by its training image."""
    distances, rows = nearest("samples", samples.flatten(1).numpy(), train.flatten(1).numpy())
    order = np.argsort(distances, kind="stable")[:SUSPECTS]
    return torch.stack([samples[order], train[rows[order]]], dim=1).flatten(0, 1)


def _distance_bars(context: Context, study: Study) -> None:
    found = {one.label: study.estimate(one.label, "fd_ratio") for one in study.contestants}
    known = {label: estimate for label, estimate in found.items() if estimate is not None}
    order = sorted(known, key=lambda label: known[label].mean)
    path = interval_chart(
        context.figures / "distance.svg",
        {label: known[label] for label in order},
        xlabel="Fréchet distance: 0 real train images, 1 independent pixels",
    )
    context.section.figure(
        path,
        "How far the samples lie from unseen real images, in the features of the main extractor. Whiskers are 95 % intervals, "
        "over seeds where there are three or more. A model at 0 is as near as real training images are.",
    )


def _curves(context: Context, study: Study, key: str, xlabel: str, name: str, caption: str) -> None:
    curves = {}
    for number, one in enumerate(study.contestants):
        shares, spent = study.anytime.get(one.label, {}), study.number(one.label, key)
        if shares and spent is not None:
            whole = float(np.mean(list(spent.values.values())))
            curves[one.label] = band_of(number, [SHARES[share] * whole for share in shares], list(shares.values()))
    if curves:
        path = band_chart(
            context.figures / f"{name}.svg", curves, xlabel=xlabel, ylabel="Fréchet distance", hlines=_yardsticks(study)
        )
        context.section.figure(path, caption)


def _calls(context: Context, study: Study) -> None:
    curves = {}
    for number, one in enumerate(study.contestants):
        shorter, end = study.by_calls.get(one.label), study.number(one.label, "fd")
        if shorter and end is not None:
            curves[one.label] = band_of(number, [*shorter, one.fact("num_function_evaluations")], [*shorter.values(), end])
    if curves:
        path = band_chart(
            context.figures / "calls.svg",
            curves,
            xlabel="calls of the network for a sample",
            ylabel="Fréchet distance",
            hlines=_yardsticks(study),
        )
        context.section.figure(path, _CALLS)


def band_of(number: int, xs: Sequence[float], distances: Sequence[Sampled]) -> Band:
    """Return a curve with the intervals of the distances' logarithms: on the chart's axis, none of them falls below zero."""
    means = [estimate(one).mean for one in distances]
    ends = [_ends_of_logarithm(one) or (mean, mean) for one, mean in zip(distances, means, strict=True)]
    lows, highs = zip(*ends, strict=True)
    return Band(number=number, xs=list(xs), means=means, lows=list(lows), highs=list(highs))


def _ends_of_logarithm(number: Sampled) -> tuple[float, float] | None:
    """Return the interval computed on the logarithm; None where a value has none, or nothing is known of the spread."""
    logarithm = logarithms(number)
    found = None if logarithm is None else estimate(logarithm)
    return None if found is None or math.isnan(found.low) else (math.exp(found.low), math.exp(found.high))


def _scatter(context: Context, study: Study, key: str, xlabel: str, name: str, caption: str, *, log_x: bool) -> None:
    points = {}
    for number, one in enumerate(study.contestants):
        x, y = study.estimate(one.label, key), study.estimate(one.label, "fd")
        if x is not None and y is not None and y.mean > 0 and (x.mean > 0 or not log_x):
            x_interval = _positive_ends(x) if log_x else _ends(x)
            points[one.label] = Point(number=number, x=x.mean, y=y.mean, x_interval=x_interval, y_interval=_positive_ends(y))
    if points:
        path = scatter_chart(
            context.figures / f"{name}.svg",
            points,
            xlabel=xlabel,
            ylabel="Fréchet distance",
            log_x=log_x,
            log_y=True,
            hlines=_yardsticks(study),
        )
        context.section.figure(path, caption)


def _yardsticks(study: Study) -> dict[str, float]:
    lines = {"real train images": study.anchors.floor, "independent pixels": study.anchors.ceiling}
    return {name: level for name, level in lines.items() if level > 0}


def _ends(found: Estimate) -> tuple[float, float] | None:
    return None if math.isnan(found.low) else (found.low, found.high)


def _positive_ends(found: Estimate) -> tuple[float, float] | None:
    """Return the interval carried to the logarithm (delta method), where no end can fall below zero."""
    if math.isnan(found.low):
        return None
    factor = math.exp((found.high - found.low) / 2 / found.mean)
    return found.mean / factor, found.mean * factor
