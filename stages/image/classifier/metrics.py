"""How well each extractor does what it was trained for.

Legend: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.errors import StageError
from stages.common.images.calibration import expected_calibration_error, reliability, wilson_interval
from stages.common.images.extractor import ExtractorNetwork
from stages.common.images.features import probabilities
from stages.common.images.grid import Split
from stages.common.images.turns import all_turns
from stages.common.statistics import ratio_interval

NUM_RESAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of right answers on one split.

    Attributes:
        value: the share.
        interval: of 95 %, over images.
        num_images: with a label.
    """

    value: float
    interval: tuple[float, float]
    num_images: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether the confidence of a classifier can be believed, on test.

    Attributes:
        error: expected calibration error.
        interval: of 95 %, by bootstrap over images.
        bins: `calibration.reliability`.
        confusion: images of class i that were called j, int64 [K, K].
    """

    error: float
    interval: tuple[float, float]
    bins: np.ndarray
    confusion: np.ndarray


def class_accuracy(network: ExtractorNetwork, split: Split) -> Accuracy:
    """Return the share of images whose class is named right; every image has a label."""
    right = int((probabilities(network, split.images).argmax(axis=1) == split.labels.numpy()).sum())
    interval = wilson_interval(right, len(split))
    return Accuracy(value=right / len(split), interval=interval, num_images=len(split))


def turn_accuracy(network: ExtractorNetwork, split: Split, turns: tuple[int, ...], *, seed: int) -> Accuracy:
    """Return the share of turns that are named right; the turns of one image are alike, so images are drawn again."""
    answers = [probabilities(network, images).argmax(axis=1) for images in all_turns(split.images, turns)]
    right = np.sum([answer == turn for turn, answer in enumerate(answers)], axis=0)
    asked = np.full(len(split), len(turns))
    interval = ratio_interval(right, asked, seed=seed, num_resamples=NUM_RESAMPLES)
    return Accuracy(value=float(right.sum() / asked.sum()), interval=interval, num_images=len(split))


def calibration(network: ExtractorNetwork, test: Split, *, seed: int) -> Calibration:
    """Return calibration and confusion on test; every image has a label."""
    given, labels = probabilities(network, test.images), test.labels.numpy()
    error = expected_calibration_error(given, labels)
    generator = np.random.default_rng(seed)
    draws = [generator.integers(len(labels), size=len(labels)) for _ in range(NUM_RESAMPLES)]
    # Drawing again raises the error of a well calibrated classifier, so the spread is taken from it and not the place.
    reach = 1.96 * float(np.std([expected_calibration_error(given[rows], labels[rows]) for rows in draws]))
    confusion = np.zeros((given.shape[1], given.shape[1]), dtype=np.int64)
    np.add.at(confusion, (labels, given.argmax(axis=1)), 1)
    interval = (max(0.0, error - reach), error + reach)
    return Calibration(error=error, interval=interval, bins=reliability(given, labels), confusion=confusion)


def chance(test: Split) -> float:
    """Return the share of the most frequent class: what a classifier gets that looks at no image."""
    return float(torch.bincount(test.labels).max() / len(test))


def is_above_guessing(found: Accuracy, num_answers: int) -> bool:
    """Return whether the whole interval of the share of right answers lies above that of guessing."""
    return found.interval[0] > 1 / num_answers


def check_turns_above_guessing(name: str, found: Accuracy, num_turns: int) -> None:
    """Refuse a network that is to judge by turns, as there are no classes, and cannot tell them.

    Raises:
        StageError: the interval of its test accuracy reaches down to what guessing gives.
    """
    if not is_above_guessing(found, num_turns):
        raise StageError(
            f"extractor {name} tells how far an image is turned in {found.value:.1%} of {found.num_images} test images, which is "
            f"no better than guessing ({1 / num_turns:.1%}), and would judge all models, as the images have no classes: train it "
            "longer (num_steps), or give images that differ from themselves turned"
        )


def check_above_chance(name: str, accuracy: Mapping[str, Accuracy], level: float) -> None:
    """Refuse an extractor that has learnt nothing: distances between its features would mean nothing.

    Raises:
        StageError: the interval of its test accuracy reaches down to `level`.
    """
    found = accuracy["test"]
    low, high = found.interval
    if not low > level:
        raise StageError(
            f"extractor {name} names {found.value:.1%} of {found.num_images} test images right (95 % interval {low:.1%} to "
            f"{high:.1%}), which is not above chance ({level:.1%}); train longer (num_steps), or check the labels"
        )
