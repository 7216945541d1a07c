"""What a class-conditional family adds to its artifact: log P(x | c) of named images, and what Bayes' rule makes of it.

Legend: B images, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax

from pipeline.contract import Context
from stages.common.images.calibration import wilson_interval
from stages.common.images.class_scores import COUNTED, LIKELIHOOD, class_bits, flops_for_one_image, save_scores
from stages.common.images.config import ConditionalConfig
from stages.common.images.family import ConditionalFamily
from stages.common.images.grid import Split
from stages.common.images.image_sets import ImageSet, image_sets
from stages.common.images.noise import seeded_generator
from stages.common.images.pictures import named_rows

SHOWN = 10
"""Samples of each class."""
_CLASSES, _ROWS = 2**42, 2**42 + 1
"""Streams of random numbers that no step number reaches."""
_ARTICLES = {"lower bound": "a lower bound", "numerical": "an estimate"}


def score_classes(config: ConditionalConfig, context: Context, family: ConditionalFamily, train: Split) -> None:
    """Write `class_likelihood.safetensors` and `class_sets.json`, and show samples by class and the Bayes classifier.

    Args:
        config: which sets, how many images and draws.
        context: of the stage.
        family: with the averaged weights.
        train: the labelled images that it learned from.
    """
    found = image_sets(context.input("images"), context.inputs("foreign"), most=config.num_class_images, which=config.class_sets)
    flops = flops_for_one_image(family, found[0].images)  # first: the time of an answer is not to hold that of warming up
    scores, halves, seconds = {}, {}, []
    for number, one in enumerate(found):
        begin = time.perf_counter()
        bits, parts = class_bits(family, one.images, config.seed, _CLASSES, number)
        seconds.append(time.perf_counter() - begin)
        scores[one.name], halves[one.name] = bits.numpy(), parts.numpy()
        context.beat()
    facts = {
        "name": family.name,
        "num_labels": config.num_labels,
        "train_counts": torch.bincount(train.labels, minlength=family.num_classes).tolist(),
        "kind": "numerical" if family.pooling == "logarithms" else "lower bound",
        "detail": family.class_detail,
        "flops_for_one_image": flops,
        "latency_ms_for_one_image": seconds[0] / len(found[0].images) * 1000,
    }
    save_scores(context.directory, LIKELIHOOD, found, scores, halves, facts)
    _rows(config, context, family)
    _classifier(context, found[0], scores[found[0].name], halves[found[0].name], facts)


def _rows(config: ConditionalConfig, context: Context, family: ConditionalFamily) -> None:
    labels = torch.arange(family.num_classes).repeat_interleave(SHOWN)
    images = family.sample_given(labels, seeded_generator(config.seed, _ROWS)).unflatten(0, (family.num_classes, SHOWN))
    names = [f"class {name}" for name in family.grid.classes]
    path = named_rows(dict(zip(names, images, strict=True)), family.grid.levels, context.figures / "classes.png")
    context.section.figure(path, "Samples of each class, none chosen: the class was given and the rest drawn.")


def _classifier(context: Context, judged: ImageSet, bits: np.ndarray, halves: np.ndarray, facts: Mapping[str, Any]) -> None:
    """Say how well Bayes' rule with equal shares of the classes names images, how much of it is luck, and what it costs."""
    labels = judged.labels.numpy()
    common: dict[str, Any] = {"n": len(labels), "split": judged.name, "items": "images"}
    right = int((bits.argmin(axis=1) == labels).sum())
    interval = wilson_interval(right, len(labels))
    noise, changed = estimator_noise(halves)
    flops, latency = facts["flops_for_one_image"], facts["latency_ms_for_one_image"]
    context.metric("bayes_accuracy", right / len(labels), unit="1", higher_is_better=True, interval=list(interval), **common)
    context.metric("class_log_odds_noise", noise, unit="nat", higher_is_better=False, **common)
    context.metric("flops_for_one_answer", flops, unit="FLOP", higher_is_better=False, n=COUNTED, items="images")
    context.metric("latency_ms_for_one_answer", latency, unit="ms", higher_is_better=False, n=len(labels), items="images")
    context.section.table(
        "A classifier by Bayes' rule",
        [f"measured on {judged.name}", "value", "95 % interval", "images"],
        [
            [
                "share of images whose class has the highest p(x | c)",
                right / len(labels),
                f"[{interval[0]:.3f}, {interval[1]:.3f}]",
                len(labels),
            ],
            ["noise of the log odds, nat", noise, None, len(labels)],
            ["share of images named otherwise by half of the draws", changed, None, len(labels)],
            ["counted FLOPs for one answer, MFLOP", flops / 1e6, None, COUNTED],
            ["wall time for one answer, ms", latency, None, len(labels)],
        ],
        caption=f"p(x | c) is {_ARTICLES[facts['kind']]}: {facts['detail']}. A model that can say how probable an image is for "
        "every class is a classifier, with no further training; but it must be asked once for every class and draw, and an "
        "answer costs accordingly. The noise is what another draw would change: a standard deviation of the log odds of the two "
        "best classes.",
    )


def estimator_noise(halves: np.ndarray) -> tuple[float, float]:
    """Return the noise of the log odds of the two likeliest classes, nats, and the share of images that halves name differently.

    With independent halves of equal size, half their difference has the standard deviation of their mean.

    Args:
        halves: bits, (2, B, K).
    """
    nats = log_softmax(-halves * np.log(2), axis=2)
    best = np.argsort(nats.mean(axis=0), axis=1)[:, -2:]
    odds = np.take_along_axis(nats, best[None], axis=2)
    gaps = odds[..., 1] - odds[..., 0]
    changed = float((halves[0].argmin(axis=1) != halves[1].argmin(axis=1)).mean())
    return float(np.sqrt(np.mean((gaps[0] - gaps[1]) ** 2)) / 2), changed
