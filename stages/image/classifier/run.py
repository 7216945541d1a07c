"""Train the extractors one after the other, refuse those that learnt nothing, and show what the metrics can see."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from pipeline.contract import Context, write_json
from pipeline.errors import DataError
from stages.common import devices
from stages.common.images.extractor import ExtractorNetwork
from stages.common.images.features import EXTRACTORS, PIXEL_COMPONENTS, ExtractorFacts, sha256_of
from stages.common.images.grid import GRID, SPLITS, Grid, Split, load_grid, load_split
from stages.common.images.labels import labelled
from stages.common.images.parts import doing
from stages.common.images.turns import turns_of
from stages.image.classifier import report
from stages.image.classifier.config import Config
from stages.image.classifier.metrics import (
    Accuracy,
    calibration,
    chance,
    check_above_chance,
    check_turns_above_guessing,
    class_accuracy,
    turn_accuracy,
)
from stages.image.classifier.training import Task, Trainer, tasks_of


@doing("training and measuring the extractors", "set batch_size or first_width lower")
def run(config: Config, context: Context) -> None:
    """Write one folder for each extractor, `extractors.json`, `grid.json`, figures, card and section.

    Raises:
        DataError: the images cannot be learned from.
        StageError: an extractor does no better than chance, or a feature has no variance; Diverged when a loss is not finite.
        Interrupted: a stop was asked for; finished extractors are saved.
    """
    accelerator = devices.make_accelerator(context)
    devices.set_up_threads(context, accelerator)
    images = context.input("images")
    grid = load_grid(images)
    splits = {name: load_split(images, name) for name in SPLITS}
    _check(grid, splits, config.num_features)
    tasks = tasks_of(config, grid, with_classes=_has_classes(splits))
    total_steps = sum(task.num_steps for task in tasks)
    trainer = Trainer(
        config=config,
        context=context,
        accelerator=accelerator,
        grid=grid,
        train=splits["train"],
        total_steps=total_steps,
    )
    folders = {task.name: trainer.make(task) for task in tasks}
    if context.is_main:
        _finish(config, context, grid, splits, {task.name: task for task in tasks}, folders)
    devices.wait_for_everyone(context, accelerator)


def _check(grid: Grid, splits: dict[str, Split], num_features: int) -> None:
    if grid.levels < 2:
        raise DataError(
            f"the images have {grid.levels} level; a network needs at least 2 to see anything: check the card's levels"
        )
    for name, split in splits.items():
        if len(split) < 2:
            raise DataError(f"the {name} split has {len(split)} images; at least 2 are needed: take more images")
    # A covariance of as many features needs more images: said here, before any model is trained to be measured in vain.
    num_test, largest = len(splits["test"]), max(num_features, min(PIXEL_COMPONENTS, grid.num_dims))
    if num_test <= largest:
        raise DataError(
            f"the test split has {num_test} images, and distances are measured in up to {largest} features (num_features, or "
            f"{PIXEL_COMPONENTS} components of the pixels), which takes more images than features: give the dataset more images, "
            "raise its test_fraction, or set num_features lower"
        )


def _has_classes(splits: dict[str, Split]) -> bool:
    """Return whether there is a class to tell from another in every split."""
    return all(len(labelled(split)) for split in splits.values()) and len(labelled(splits["train"]).labels.unique()) > 1


def _finish(
    config: Config, context: Context, grid: Grid, splits: dict[str, Split], tasks: dict[str, Task], folders: dict[str, Path]
) -> None:
    outcomes = [_outcome(context, grid, splits, task, folders[name]) for name, task in tasks.items()]
    if not any(task.kind == "supervised" for task in tasks.values()):
        for outcome in outcomes:
            if outcome.facts.kind == "rotation":
                check_turns_above_guessing(outcome.facts.name, outcome.accuracy["test"], outcome.facts.num_outputs)
    for outcome in outcomes:
        shutil.copytree(folders[outcome.facts.name], context.directory / outcome.facts.name, dirs_exist_ok=True)
    write_json(context.directory / EXTRACTORS, [asdict(outcome.facts) for outcome in outcomes])
    shutil.copy(context.input("images") / GRID, context.directory / GRID)
    report.write_report(context, config, grid, splits, outcomes)


def _outcome(context: Context, grid: Grid, splits: dict[str, Split], task: Task, folder: Path) -> report.Outcome:
    """Measure one extractor.

    Raises:
        StageError: it was to learn classes and does no better than chance.
    """
    context.beat()
    network = ExtractorNetwork.from_pretrained(folder).eval()
    accuracy: dict[str, Accuracy] = {}
    if task.kind == "supervised":
        accuracy = {name: class_accuracy(network, labelled(split)) for name, split in splits.items()}
        check_above_chance(task.name, accuracy, chance(labelled(splits["test"])))
    elif task.kind == "rotation":
        turns = turns_of(grid.height, grid.width)
        accuracy = {name: turn_accuracy(network, split, turns, seed=task.seed) for name, split in splits.items()}
    facts = ExtractorFacts(
        name=task.name,
        kind=task.kind,
        seed=task.seed,
        num_features=network.config.num_features,
        num_outputs=task.num_outputs,
        test_accuracy=accuracy["test"].value if accuracy else None,
        sha256=sha256_of(folder),
    )
    found = calibration(network, labelled(splits["test"]), seed=task.seed) if task.kind == "supervised" else None
    return report.Outcome(facts=facts, accuracy=accuracy, calibration=found)
