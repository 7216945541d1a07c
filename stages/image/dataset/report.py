"""What the dataset tells: metrics, statistics.json, a section for the report, pictures, and a card for people."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.contract import Context, write_json
from stages.common.images.grid import SPLITS, Grid, Split
from stages.common.images.pictures import named_rows, sheet
from stages.common.plots import line_chart
from stages.image.dataset.checks import class_counts
from stages.image.dataset.gates import KINDS
from stages.image.dataset.neighbours import Nearness
from stages.image.dataset.origin import Plan

CLASSES_SHOWN, IMAGES_OF_CLASS, IMAGES_SHOWN = 20, 16, 96
"""Rows and columns of the sheet by class; images of a sheet without labels."""
ROWS = 100
"""Classes in the table of the report; statistics.json has all."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What was made.

    Attributes:
        grid, splits: as saved.
        num_read: images that passed the gates.
        num_copies: how many of them were exact copies and went.
        nearness: how near test comes to train.
        findings: what the gates found (`Gates.table`).
    """

    grid: Grid
    splits: dict[str, Split]
    num_read: int
    num_copies: int
    nearness: Nearness
    findings: list[dict[str, Any]]


def write(context: Context, plan: Plan, dataset: Dataset) -> None:
    """Write everything that people read of a dataset."""
    histograms = {name: level_counts(split, dataset.grid) for name, split in dataset.splits.items()}
    statistics = statistics_of(plan, dataset, histograms)
    write_json(context.directory / "statistics.json", statistics)
    _metrics(context, dataset, statistics)
    _section(context, plan, dataset, statistics, histograms)
    (context.directory / "card.md").write_text(_card(plan, dataset), encoding="utf-8")


def level_counts(split: Split, grid: Grid) -> np.ndarray:
    """Return how often each level occurs in each channel; shape (C, K), int64."""
    channels = [torch.bincount(split.images[:, c].flatten(), minlength=grid.levels) for c in range(grid.channels)]
    return torch.stack(channels).numpy()


def level_bits(train: np.ndarray, test: np.ndarray) -> float:
    """Return the bits for one value of test if all that is known are the shares of the levels in train.

    The cross-entropy -sum q(x) log2 p(x), p of train with one added to each count, so that no level is impossible.
    """
    p = (train.sum(axis=0) + 1) / (train.sum() + train.shape[1])
    q = test.sum(axis=0) / max(1, test.sum())
    return float(-(q * np.log2(p)).sum())


def statistics_of(plan: Plan, dataset: Dataset, histograms: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what `statistics.json` holds."""
    grid, near = dataset.grid, dataset.nearness
    counts = class_counts(dataset.splits, len(grid.classes))
    return {
        "name": grid.name,
        "license": grid.license,
        "source": plan.origin.name,
        "splits": {
            name: {"images": len(split), "levels_used": int((histograms[name].sum(axis=0) > 0).sum())}
            for name, split in dataset.splits.items()
        },
        "classes": [{"name": name, **row} for name, row in zip(grid.classes, counts, strict=True)],
        "read": dataset.num_read,
        "exact_copies": dataset.num_copies,
        "findings": dataset.findings,
        "near_train": {
            "test_images": near.num_images,
            "within_one_level": near.num_near,
            "median_distance_levels": near.median_distance,
        },
        "bits_per_dim": {
            "uniform": math.log2(grid.levels),
            "shares_of_levels": level_bits(histograms["train"], histograms["test"]),
        },
        "level_counts": {name: counts.tolist() for name, counts in histograms.items()},
    }


def _metrics(context: Context, dataset: Dataset, statistics: dict[str, Any]) -> None:
    for name, split in statistics["splits"].items():
        n = split["images"]
        context.metric("images", n, unit="images", higher_is_better=None, n=n, split=name, headline=name == "train")
    n, train = dataset.num_read, statistics["splits"]["train"]
    context.metric("exact_copies", dataset.num_copies, unit="images", higher_is_better=None, n=n)
    dropped = sum(row["count"] for row in dataset.findings if row["action"] == "drop")
    context.metric("dropped", dropped, unit="findings", higher_is_better=None, n=n)
    context.metric("levels_used", train["levels_used"], unit="levels", higher_is_better=None, n=train["images"], split="train")
    near = dataset.nearness
    context.metric("near_train", near.num_near, unit="images", higher_is_better=False, n=near.num_images, split="test")
    bits, tested = statistics["bits_per_dim"]["shares_of_levels"], statistics["splits"]["test"]["images"]
    context.metric("level_bits", bits, unit="bit/dim", higher_is_better=None, n=tested, split="test")


def _section(
    context: Context, plan: Plan, dataset: Dataset, statistics: dict[str, Any], histograms: dict[str, np.ndarray]
) -> None:
    grid, section = dataset.grid, context.section
    section.describe(
        title="Images",
        idea="Every image becomes whole numbers on one grid, so that all models are judged on the same data. Models learn from "
        "train, choices are made on validation, and test is looked at only to say how good the result is; no image is in two.",
        formula="x ∈ {0, …, K − 1}^(C·H·W);   split(x) = test if h < t, validation if h < t + v, else train, "
        "where h = sha256(x) / 2²⁵⁶",
    )
    shape = f"{grid.channels} x {grid.height} x {grid.width}"
    section.text(
        f"Source: {plan.origin.name} ({grid.name}). Licence of the images: {grid.license}. An image has {shape} values "
        f"(channels x height x width) of {grid.levels} levels."
    )
    caption = "Some images of train, the first by content hash. A generative model must learn to make more such images."
    section.figure(_sheet(context, dataset), caption)
    section.table(
        "Images in the splits",
        ["split", "images", "levels that occur"],
        [[name, split["images"], split["levels_used"]] for name, split in statistics["splits"].items()],
        caption="The hash of an image alone decides its split, so adding images moves none of the others.",
    )
    if grid.classes:
        _class_table(context, statistics["classes"])
    section.table("What was measured", ["statistic", "value", "what it tells"], _explained(dataset, statistics))
    if dataset.findings:
        findings = [[KINDS[row["kind"]], row["action"], row["count"], row["examples"][0]] for row in dataset.findings]
        caption = "Every change and every image that was left out is counted; nothing is changed in silence."
        section.table("What the gates found", ["finding", "treatment", "count", "first example"], findings, caption=caption)
    caption = (
        "How often each level occurs. A tall spike (a black or white background) is easy for a model that gives each level a "
        "probability of its own, and hard for one that spreads a smooth density over it."
    )
    section.figure(_level_chart(context, grid, histograms), caption)
    section.facts("Exact numbers", {f"sha256 of {name}: pixels and labels": grid.sha256[name] for name in SPLITS})


def _sheet(context: Context, dataset: Dataset) -> str:
    grid, train, path = dataset.grid, dataset.splits["train"], context.figures / "images.png"
    if not grid.classes:
        return sheet(train.images[:IMAGES_SHOWN], grid.levels, IMAGES_OF_CLASS, path)
    rows = {name: train.images[train.labels == label] for label, name in enumerate(grid.classes[:CLASSES_SHOWN])}
    return named_rows({name: images[:IMAGES_OF_CLASS] for name, images in rows.items()}, grid.levels, path)


def _level_chart(context: Context, grid: Grid, histograms: dict[str, np.ndarray]) -> str:
    """Draw the share of each level: train beside test, or the colours of train."""
    counts = {"train": histograms["train"], "test": histograms["test"]}
    if grid.channels == 3:
        counts = dict(zip(("red", "green", "blue"), histograms["train"][:, None], strict=True))
    levels = list(range(grid.levels))
    curves = {name: (levels, (found.sum(axis=0) / max(1, found.sum())).tolist()) for name, found in counts.items()}
    return line_chart(context.figures / "levels.svg", curves, xlabel="level", ylabel="share of the values", log_y=True)


def _class_table(context: Context, classes: list[dict[str, Any]]) -> None:
    total = sum(row[name] for row in classes for name in SPLITS)
    rows = [[row["name"], *(row[name] for name in SPLITS), sum(row[name] for name in SPLITS) / total] for row in classes[:ROWS]]
    more = f" {len(classes) - ROWS:,} more classes are in statistics.json." if len(classes) > ROWS else ""
    caption = f"A model that drops or prefers classes shows it as another distribution than this.{more}"
    context.section.table("Images of each class", ["class", *SPLITS, "share of all"], rows, caption=caption)


def _explained(dataset: Dataset, statistics: dict[str, Any]) -> list[list[Any]]:
    """Return [statistic, value, one sentence for a learner]."""
    near, bits = dataset.nearness, statistics["bits_per_dim"]
    return [
        [
            "exact copies removed",
            dataset.num_copies,
            "An image that is there twice counts twice, and could be in train and in test at once.",
        ],
        [
            f"test images with a twin in train (of {near.num_images:,})",
            near.num_near,
            "No value differs by more than one level: to know the train image by heart is to know these.",
        ],
        [
            "median distance of a test image to train, levels",
            near.median_distance,
            "Root of the mean squared difference to the nearest train image; a generated image that is much nearer was copied.",
        ],
        [
            "bits per value, knowing nothing",
            bits["uniform"],
            "log2 K: what each value costs when all levels are equally likely. Every model should need less.",
        ],
        [
            "bits per value, knowing how often each level occurs",
            bits["shares_of_levels"],
            "Cross-entropy of test under the shares of train; what a model saves beyond this, it knows about shapes.",
        ],
    ]


def _card(plan: Plan, dataset: Dataset) -> str:
    """A short card for people; it quotes no name of a file or class, so none can break out of it."""
    grid = dataset.grid
    labels = f"one of {len(grid.classes)} labels" if grid.classes else "no label"
    rows = "\n".join(f"| {name} | {grid.sizes[name]:,} | `{grid.sha256[name]}` |" for name in SPLITS)
    findings = "\n".join(f"- {KINDS[row['kind']]}: {row['count']:,} ({row['action']})" for row in dataset.findings)
    return (
        f"""---
license: {json.dumps(grid.license)}
pretty_name: {json.dumps(grid.name)}
---

# Images: {grid.name}

Read from: {plan.origin.name}. Licence of the images: {grid.license}; whatever is made from them carries it on.

Each image has {grid.channels} x {grid.height} x {grid.width} values (channels x height x width), whole numbers from 0 to
{grid.levels - 1}, and {labels}. `images.safetensors` holds, for each split, `SPLIT.images`
(uint8) and `SPLIT.labels` (int64, -1 for none); `grid.json` says the rest.

| split | images | sha256 of pixels and labels |
|---|---|---|
{rows}

Exact copies removed: {dataset.num_copies:,}. The sha256 of an image's pixels decides its split.

Findings:
{findings or "- none"}

{plan.prose}
""".rstrip()
        + "\n"
    )
