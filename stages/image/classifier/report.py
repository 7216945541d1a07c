"""What the classifier stage shows: metrics, one section of the report, the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from pipeline.contract import Context, read_events
from stages.common.images.calibration import wilson_interval
from stages.common.images.features import Extractor, ExtractorFacts, load_extractor
from stages.common.images.grid import Grid, Split
from stages.common.plots import line_chart
from stages.image.classifier.config import Config
from stages.image.classifier.metrics import Accuracy, Calibration, is_above_guessing
from stages.image.classifier.panel import write_panel
from stages.image.classifier.pictures import confusion_picture

TASKS = {"supervised": "the class", "rotation": "how far the image was turned", "random": "nothing"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One extractor and what was measured of it.

    Attributes:
        facts: as in `extractors.json`.
        accuracy: split -> share of right answers; empty without training.
        calibration: on test; None where it knows no classes.
    """

    facts: ExtractorFacts
    accuracy: Mapping[str, Accuracy]
    calibration: Calibration | None


def write_report(context: Context, config: Config, grid: Grid, splits: Mapping[str, Split], outcomes: Sequence[Outcome]) -> None:
    """Write metrics, section, figures and card; the extractors lie in the artifact already."""
    _metrics(context, outcomes)
    context.section.describe(
        title="Classifiers and feature extractors",
        idea="A classifier learns only where one class ends and the next begins, not what images look like; still, the layer "
        "before its answer describes an image by a few numbers in which like images lie close together. The metrics of the "
        "image wing compare sets of images in that space, so the networks are made here, from the train split alone, and "
        "several of them, because one network's eye can be fooled.",
        formula="z = (features − mean over train) / deviation over train;   d² = |m − m'|² + tr(S + S' − 2 (S S')^½)",
    )
    if not any(outcome.facts.kind == "supervised" for outcome in outcomes):
        context.section.text(
            "These images have no labels that tell two classes apart, so no classifier was trained: only the network that "
            "recognises turned images and the untrained one. Metrics that need classes (class shares) are left out."
        )
    _accuracy_table(context, outcomes)
    _loss_curves(context, outcomes)
    _classifier(context, grid, outcomes)
    extractors = [_loaded(context, outcome) for outcome in outcomes]
    write_panel(context, config, grid, splits, extractors)
    _facts(context, config, outcomes)
    _card(context, grid, outcomes)


def _loaded(context: Context, outcome: Outcome) -> Extractor:
    return load_extractor(context.directory / outcome.facts.name, outcome.facts)


def _metrics(context: Context, outcomes: Sequence[Outcome]) -> None:
    for index, outcome in enumerate(outcomes):
        prefix = outcome.facts.name.replace("-", "_")
        for split, found in outcome.accuracy.items():
            context.metric(
                f"{prefix}_accuracy",
                found.value,
                unit="1",
                higher_is_better=True,
                n=found.num_images,
                split=split,
                interval=list(found.interval),
                headline=index == 0 and split == "test",
                items="images",
            )
        if outcome.calibration is not None:
            context.metric(
                f"{prefix}_calibration_error",
                outcome.calibration.error,
                unit="1",
                higher_is_better=False,
                n=outcome.accuracy["test"].num_images,
                split="test",
                interval=list(outcome.calibration.interval),
                items="images",
            )


def _accuracy_table(context: Context, outcomes: Sequence[Outcome]) -> None:
    rows: list[list[str | int | float | bool | None]] = []
    for outcome in outcomes:
        facts, found = outcome.facts, outcome.accuracy
        shares = [found[split].value if found else None for split in ("train", "validation", "test")]
        low, high = found["test"].interval if found else (None, None)
        num_images = found["test"].num_images if found else None
        rows.append([facts.name, TASKS[facts.kind], str(facts.seed), *shares, low, high, num_images])
    columns = ["network", "learns to name", "seed", "train", "validation", "test", "test, low", "test, high", "test images"]
    caption = (
        "Share of right answers, with the 95 % interval over test images (Wilson's; for turns, by bootstrap over images). A gap "
        "between train and test is what was learnt by heart. The untrained network is there for its features only."
    )
    context.section.table("What each network learnt", columns, rows, caption=caption)
    for outcome in outcomes:
        facts, found = outcome.facts, outcome.accuracy
        if facts.kind == "rotation" and not is_above_guessing(found["test"], facts.num_outputs):
            context.section.text(
                f"{facts.name} does no better than guessing ({1 / facts.num_outputs:.1%}): it has learnt nothing of turns, and "
                "its opinion of models is hardly worth more than that of the untrained network."
            )


def _loss_curves(context: Context, outcomes: Sequence[Outcome]) -> None:
    events = read_events(context.directory / "events.jsonl")
    series = {}
    for outcome in outcomes:
        values = [float(event.value) for event in events if event.name == f"{outcome.facts.name}.loss"]
        if values:
            series[outcome.facts.name] = (list(range(1, len(values) + 1)), values)
    path = line_chart(context.figures / "loss.svg", series, xlabel="step", ylabel="loss (nat/image)", log_y=True)
    context.section.figure(path, "Cross-entropy of each batch. Turns are harder to name than classes: a round shape looks alike.")


def _classifier(context: Context, grid: Grid, outcomes: Sequence[Outcome]) -> None:
    known = {outcome.facts.name: outcome.calibration for outcome in outcomes if outcome.calibration is not None}
    if not known:
        return
    first, found = next(iter(known.items()))
    picture = confusion_picture(context.figures / "confusion.svg", found.confusion, grid.classes)
    context.section.figure(picture, f"What {first} calls the test images of each class: off the diagonal are its errors.")
    errors = "; ".join(f"{name} {one.error:.3f} [{one.interval[0]:.3f}, {one.interval[1]:.3f}]" for name, one in known.items())
    context.section.table(
        f"Can the confidence of {first} be believed?",
        ["confidence", "test images", "mean confidence", "share right", "low", "high"],
        _bins(found.bins),
        caption="Mean confidence should lie between low and high, the 95 % interval of the share that is right. Expected "
        f"calibration error with its 95 % interval: {errors}.",
    )


def _bins(bins: np.ndarray) -> list[list[str | int | float | bool | None]]:
    rows: list[list[str | int | float | bool | None]] = []
    for index, (count, confidence, share) in enumerate(bins.tolist()):
        if count:
            low, high = wilson_interval(round(share * count), int(count))
            span = f"{index / len(bins):g} to {(index + 1) / len(bins):g}"
            rows.append([span, int(count), confidence, share, low, high])
    return rows


def _facts(context: Context, config: Config, outcomes: Sequence[Outcome]) -> None:
    hashes = {f"sha256 of {outcome.facts.name}": outcome.facts.sha256 for outcome in outcomes}
    context.section.facts(
        "Settings and hashes",
        {
            "steps of each trained network": config.num_steps,
            "images in a step": config.batch_size,
            "learning rate": config.learning_rate,
            "features": config.num_features,
            **hashes,
        },
    )


def _card(context: Context, grid: Grid, outcomes: Sequence[Outcome]) -> None:
    front = yaml.safe_dump(
        {"license": grid.license, "library_name": "diffusers", "tags": ["feature-extraction", "image-classification"]},
        sort_keys=False,
        allow_unicode=True,
    )
    lines = [
        f"- `{outcome.facts.name}/`: learns to name {TASKS[outcome.facts.kind]}"
        + (f"; right on {outcome.accuracy['test'].value:.1%} of test" if outcome.accuracy else "")
        for outcome in outcomes
    ]
    channels, height, width = grid.shape
    text = f"""---
{front}---
# Feature extractors for {grid.name}

Networks trained from nothing on the train split, images of {channels} x {height} x {width} values on {grid.levels} levels.
{chr(10).join(lines)}

They are for judging generated images of this very data on this very grid. Numbers from different extractors, or from the same
one on other images, must not be compared: each has a sha256 in `extractors.json`, which every measured number carries on.
`statistics.safetensors` holds mean and deviation of the features over the train split. With Groundup installed:

    from stages.common.images.extractor import ExtractorNetwork
    network = ExtractorNetwork.from_pretrained("{outcomes[0].facts.name}")
    features = network.features(images)   # uint8 (N, {channels}, {height}, {width}) -> (N, {outcomes[0].facts.num_features})
"""
    (context.directory / "card.md").write_text(text, encoding="utf-8")
