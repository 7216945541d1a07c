"""Means with intervals that other test images and other trainings are to respect.

Legend: S seeds, N images, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.common.images.calibration import wilson_interval
from stages.common.verdicts import LEAST_SEEDS, Estimate, t_interval


def share(happened: np.ndarray) -> Estimate:
    """Return the mean of 0 and 1, (S, N), such as wrong answers, with a 95 % interval inside [0, 1].

    Seeds answer about the same images, so N images and not S·N are what Wilson's interval stands on.
    """
    num_images = happened.shape[1]
    interval = wilson_interval(float(happened.mean()) * num_images, num_images)
    return widened(happened.mean(axis=1).tolist(), interval, bounds=(0.0, 1.0))


def widened(values: Sequence[float], over_images: tuple[float, float], *, bounds: tuple[float, float]) -> Estimate:
    """Return the mean over seeds, its interval over images and, from LEAST_SEEDS seeds on, the t interval, whichever is wider.

    Args:
        values: of each seed, (S,).
        over_images: 95 % interval of the mean by other images.
        bounds: beyond them lies no true value, and the interval is cut.
    """
    mean, (low, high) = float(np.mean(values)), over_images
    over_seeds = t_interval(values) if len(values) >= LEAST_SEEDS else over_images
    return Estimate(
        mean=mean,
        low=max(min(low, over_seeds[0], mean), bounds[0]),
        high=min(max(high, over_seeds[1], mean), bounds[1]),
        num_seeds=len(values),
        method="images and seeds" if len(values) >= LEAST_SEEDS else "images",
    )


def multiplicities(num_images: int, *, seed: int, num_resamples: int) -> np.ndarray:
    """Return how often each image is drawn when as many are drawn again, (R, N); equal arguments give equal draws."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples)
