"""Train the classifier, score the named images, write the artifact."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import yaml

from pipeline.contract import Context, write_bytes
from stages.common import devices
from stages.common.images.calibration import expected_calibration_error, wilson_interval
from stages.common.images.class_scores import COUNTED, POSTERIOR, save_scores
from stages.common.images.family_report import Cost, curves, history_of
from stages.common.images.image_sets import ImageSet, image_sets
from stages.common.images.ledger import FlopLedger
from stages.common.images.parts import doing
from stages.common.images.stage import Prepared, cost_of, prepare, split_of
from stages.image.discriminative.config import Config
from stages.image.discriminative.model import Discriminative


@doing("training the classifier and asking it", "set num_class_images lower, or choose a smaller model or smaller images")
def run(config: Config, context: Context) -> None:
    """Write the artifact of kind `discriminative_classifier`.

    Raises:
        DataError: the images have no classes, or too few of one.
        StageError: budget, batch and processes do not fit together; Diverged when the loss stops being finite.
        Interrupted: a stop was asked for; the state is saved.
    """
    prepared = prepare(config, context, lambda grid: Discriminative(grid, config))
    prepared.training.run(prepared.num_steps, {})
    if context.is_main:
        with prepared.training.averages.in_place():
            _finish(config, context, prepared)
    devices.wait_for_everyone(context, prepared.accelerator)


def _finish(config: Config, context: Context, prepared: Prepared[Discriminative]) -> None:
    model = prepared.family
    model.save(context.directory / "model")
    images = context.input("images")
    sets = image_sets(images, context.inputs("foreign"), most=config.num_class_images, which=config.class_sets)
    scores = {one.name: model.log_probs(one.images).numpy() for one in sets}
    begin = time.perf_counter()  # the second time: the first one warmed up
    model.log_probs(sets[0].images)
    latency = (time.perf_counter() - begin) / len(sets[0].images) * 1000
    cost = cost_of(context, prepared, latency, 1)
    train = split_of(config, context, "train")
    with FlopLedger() as ledger:
        model.log_probs(sets[0].images[:COUNTED])
    facts = {
        "name": model.name,
        "num_labels": config.num_labels,
        "train_counts": torch.bincount(train.labels, minlength=len(model.grid.classes)).tolist(),
        "kind": "discriminative",
        "detail": "softmax of the network",
        "flops_for_one_image": ledger.flops / len(sets[0].images[:COUNTED]),
        "latency_ms_for_one_image": latency,
        "training_flops": cost.training_flops,
        "parameters": cost.parameters,
    }
    save_scores(context.directory, POSTERIOR, sets, scores, {}, facts)
    _report(context, model, sets[0], scores[sets[0].name], cost, facts)


def _report(
    context: Context, model: Discriminative, judged: ImageSet, log_probs: np.ndarray, cost: Cost, facts: Mapping[str, Any]
) -> None:
    labels, num_train, flops = judged.labels.numpy(), sum(facts["train_counts"]), facts["flops_for_one_image"]
    right = int((log_probs.argmax(axis=1) == labels).sum())
    low, high = wilson_interval(right, len(labels))
    log_loss = float(-log_probs[range(len(labels)), labels].mean())
    error = expected_calibration_error(np.exp(log_probs), labels)
    section = context.section
    section.describe(
        title="Discriminative classifier",
        idea="A network is shown images with their classes and learns where one class ends and the next begins. It never learns "
        "what an image looks like, so it is quick to tell classes apart and has an answer for everything, even for noise.",
        formula="loss = −ln p(c | x)",
    )
    history, caption = history_of(context), "Batches while training: the images that it learns from, seen again and again."
    curves(context, history, {"classes.loss": "loss"}, ylabel="−ln p(c | x), nat", name="loss", caption=caption)
    curves(context, history, {"classes.accuracy": "accuracy"}, ylabel="share of right answers", name="accuracy", caption=caption)
    section.table(
        f"On {judged.name}",
        ["measured", "value", "95 % interval", "images"],
        [
            ["accuracy", right / len(labels), f"[{low:.3f}, {high:.3f}]", len(labels)],
            ["log-loss, nat", log_loss, None, len(labels)],
            ["expected calibration error", error, None, len(labels)],
            ["counted FLOPs for one answer, MFLOP", flops / 1e6, None, COUNTED],
            ["wall time for one answer, ms", cost.latency_ms_per_image, None, len(labels)],
        ],
        caption=f"Learned from {num_train} labelled images with {cost.training_flops / 1e12:.3g} TFLOP in {cost.num_steps:,} "
        f"steps; {cost.parameters:,} parameters; no augmentation, as for the generative models.",
    )
    common: dict[str, Any] = {"n": len(labels), "split": judged.name, "items": "images"}
    context.metric(
        "accuracy", right / len(labels), unit="1", higher_is_better=True, interval=[low, high], headline=True, **common
    )
    context.metric("log_loss", log_loss, unit="nat", higher_is_better=False, **common)
    context.metric("expected_calibration_error", error, unit="1", higher_is_better=False, **common)
    context.metric("flops_for_one_answer", flops, unit="FLOP", higher_is_better=False, n=COUNTED, items="images")
    context.metric(
        "latency_ms_for_one_answer", cost.latency_ms_per_image, unit="ms", higher_is_better=False, n=len(labels), items="images"
    )
    context.metric("training_flops", cost.training_flops, unit="FLOP", higher_is_better=None, n=cost.num_steps, items="steps")
    metadata = {"license": model.grid.license, "tags": ["groundup", "image-classification"]}
    text = (
        f"---\n{yaml.safe_dump(metadata)}---\n# Classifier of {model.grid.name}, {cost.parameters:,} parameters\n\n"
        f"Trained from random weights on {num_train:,} labelled images with {cost.training_flops / 1e12:.3g} TFLOP, counted. "
        f"Accuracy on {judged.name} {right / len(labels):.3f} (95 % interval {low:.3f} to {high:.3f}, {len(labels)} images).\n\n"
        f"- Licence of the images: {model.grid.license}\n- Images: {context.input('images').fingerprint}\n"
    )
    write_bytes(context.directory / "card.md", text.encode())
