"""Modes that can be counted: of stacked images every triple of classes is one, and a classifier of the grey images reads it.

Legend: N stacks, C = 3 channels, H height, W width, G classes of the grey images.

A likelihood says nothing of a GAN, and shares of ten classes little of what it leaves out; of 1,000 equally likely modes a count
does (Metz et al., arXiv 1611.02163; Lin et al., PacGAN, arXiv 1712.04086). The judge errs, and n samples cannot reach every mode,
so a count stands beside that of as many real stacks, read by the same judge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.contract import Context
from pipeline.errors import DataError
from stages.common.images.evaluation import Evaluator
from stages.common.images.features import Extractor, load_extractors
from stages.common.images.grid import load_grid, load_split
from stages.common.images.pictures import named_rows
from stages.common.images.stacks import CHANNELS, CLASSES, STACKED, Stacked, load_stacked
from stages.common.metrics.mode_count import count_modes, expected_modes, mode_counts, mode_deviations
from stages.common.verdicts import Sampled
from stages.common.wording import short
from stages.image.compare import tables
from stages.image.compare.models import Contestant
from stages.image.compare.study import ModeAnchors, Study

MODE_KEYS = ("modes", "mode_divergence")
OFTEN = 4
"""In the picture a mode that is drawn so many times as often as expected is white."""
_SHADES = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class ModeJudge:
    """Reads the mode of a stack: the class of each of its channels, as a classifier of the grey images sees it."""

    classifier: Extractor
    stacked: Stacked

    def modes(self, stacks: Tensor) -> np.ndarray:
        """Return int64 (N,) of uint8 (N, C, H, W)."""
        channels = stacks.flatten(0, 1)[:, None]
        classes = self.classifier.probabilities(channels).argmax(axis=1).reshape(len(stacks), CHANNELS)
        return self.stacked.modes(torch.from_numpy(classes)).numpy()


def load_judge(images: Artifact, judges: list[Artifact]) -> ModeJudge | None:
    """Return the judge of needs.judge, None where there is none.

    Raises:
        DataError: the images are no stacks, or the judge was made from other images than those that were stacked.
    """
    if not judges:
        return None
    stacked, (artifact,) = load_stacked(images), judges
    if stacked is None:
        raise DataError(
            f"needs.judge reads the channels of stacked images, but needs.images has no {STACKED}; stack grey images by "
            "stages.image.stacked, or leave needs.judge out"
        )
    if (grid := load_grid(artifact)).sha256 != stacked.sha256:
        raise DataError(
            f"needs.judge was made from '{grid.name}', which are not the images that were stacked ('{stacked.name}'): make it by "
            "stages.image.classifier from those"
        )
    # Images that could be stacked have classes, so one of their extractors learnt them.
    classifier = next(extractor for extractor in load_extractors(artifact) if extractor.kind == "supervised")
    return ModeJudge(classifier=classifier, stacked=stacked)


def anchors_of(judge: ModeJudge, images: Artifact, split: str, evaluator: Evaluator) -> ModeAnchors:
    """Return what real stacks have, as many as samples are measured, and how often the judge is right on the split."""
    real, n = judge.modes(evaluator.real), len(evaluator.real)
    truth = judge.stacked.modes(load_file(images / CLASSES)[split]).numpy()
    found = count_modes(real, judge.stacked.num_modes)
    return ModeAnchors(
        num_modes=judge.stacked.num_modes,
        real_modes=int(found["modes"]),
        real_divergence=found["mode_divergence"],
        expected=expected_modes(n, judge.stacked.num_modes),
        accuracy=float((judge.modes(load_split(images, split).images) == truth).mean()),
        judge=judge.classifier.name,
        judge_sha256=judge.classifier.sha256,
    )


def mode_numbers(one: Contestant, judge: ModeJudge) -> dict[str, Sampled]:
    """Return modes reached and divergence of a model; deviations are the jackknife's over its samples."""
    num_modes = judge.stacked.num_modes
    read = {seed: judge.modes(samples) for seed, samples in one.samples().items()}
    found = {seed: count_modes(modes, num_modes) for seed, modes in read.items()}
    spread = {seed: mode_deviations(modes, num_modes) for seed, modes in read.items()}
    tops = {"modes": float(num_modes), "mode_divergence": math.log(num_modes)}
    return {
        key: Sampled(
            {seed: values[key] for seed, values in found.items()},
            {seed: values[key] for seed, values in spread.items()},
            (0.0, tops[key]),
            degrees=min(map(len, read.values())) - 1,
        )
        for key in MODE_KEYS
    }


def write_modes(context: Context, study: Study, judge: ModeJudge | None) -> None:
    """Add the table and the picture of the modes, where they can be counted."""
    anchors = study.modes
    if judge is None or anchors is None:
        return
    rows: list[Any] = tables.rows_of(study, MODE_KEYS)
    rows.append(["real train stacks", str(anchors.real_modes), short(anchors.real_divergence)])
    n = study.anchors.num_samples
    context.section.table(
        f"How many of {anchors.num_modes:,} modes",
        tables.columns_of(MODE_KEYS),
        rows,
        caption=f"Every triple of classes is a mode, all equally likely. {anchors.judge} reads each channel of {n:,} samples; it "
        f"reads {anchors.accuracy:.1%} of the {study.split} stacks right in all three. Even {n:,} perfect samples would reach "
        f"{short(anchors.expected)} modes on average, so a model is held against the last row: as many real stacks, read alike. "
        "Divergence: Kullback-Leibler, of the shares of the modes from equal ones, in nats. Intervals over samples are the "
        "jackknife's.",
    )
    pictures = {one.label: _occupancy(next(iter(one.samples().values())), judge) for one in study.contestants if one.is_model}
    pictures["real"] = _occupancy(load_split(context.input("images"), "train").images[:n], judge)
    path = named_rows(pictures, _SHADES, context.figures / "modes.png", headings=list(judge.stacked.classes))
    context.section.figure(
        path,
        f"Every mode a square: one panel for each class in red, green down, blue to the right, of the {n:,} samples of the first "
        f"seed. Black: never drawn. White: {OFTEN} times as often as its share or more.",
    )


def _occupancy(stacks: Tensor, judge: ModeJudge) -> Tensor:
    """Return how often each mode occurs as images uint8 (G, 1, G, G): red, green, blue."""
    sides = (len(judge.stacked.classes),) * CHANNELS
    counts = mode_counts(judge.modes(stacks), judge.stacked.num_modes)
    shades = counts * judge.stacked.num_modes / len(stacks) / OFTEN * (_SHADES - 1)
    return torch.from_numpy(np.minimum(np.ceil(shades), _SHADES - 1).astype(np.uint8)).reshape(sides)[:, None]
