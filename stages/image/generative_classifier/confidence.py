"""Can a classifier's confidence be believed? Calibration on test, before and after a temperature that validation images give.

Legend: S seeds, N test images, K classes, R resamples, G bins of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from stages.common.images.calibration import expected_calibration_error, wilson_interval
from stages.common.verdicts import Estimate
from stages.image.generative_classifier.bayes import losses, temperature
from stages.image.generative_classifier.cells import Judged
from stages.image.generative_classifier.estimates import multiplicities, widened

NUM_BINS = 10
NUM_GROUPS = 5


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Confidence at the largest number of labels, on test; each pair is before and after temperature.

    Attributes:
        error: expected calibration error.
        log_loss: nats.
        losses: -ln P(true class | x) of each seed and image, (S, N), nats.
        temperatures: of each seed, found on validation images alone.
        groups: answers of all seeds by confidence, see `by_confidence`.
    """

    error: tuple[Estimate, Estimate]
    log_loss: tuple[Estimate, Estimate]
    losses: tuple[np.ndarray, np.ndarray]
    temperatures: list[float]
    groups: tuple[np.ndarray, np.ndarray]

    @property
    def temperature(self) -> float:
        """The geometric mean over seeds."""
        return float(np.exp(np.mean(np.log(self.temperatures))))

    @property
    def wasted(self) -> np.ndarray:
        """Log-loss that the temperature saves, (S, N), nats: what wrong confidence costs, whatever the share of right answers."""
        return np.asarray(self.losses[0] - self.losses[1])


def calibration(test: Sequence[Judged], validation: Sequence[Judged], *, seed: int, num_resamples: int) -> Calibration:
    """Find a temperature for each training on its answers to validation images, and judge its answers to test images.

    Args:
        test, validation: what each seed says, in one order.
        seed: of the draws of images.
        num_resamples: R.
    """
    labels = test[0].labels
    found = [temperature(judged.log_posterior, judged.labels) for judged in validation]
    before = [judged.log_posterior for judged in test]
    after = [log_softmax(values / t, axis=1) for values, t in zip(before, found, strict=True)]
    weights = multiplicities(len(labels), seed=seed, num_resamples=num_resamples)
    first, second = (np.stack([losses(values, labels) for values in stack]) for stack in (before, after))
    return Calibration(
        error=(_error(before, labels, weights), _error(after, labels, weights)),
        log_loss=(_log_loss(first, weights), _log_loss(second, weights)),
        losses=(first, second),
        temperatures=found,
        groups=(by_confidence(before, labels), by_confidence(after, labels)),
    )


def _log_loss(values: np.ndarray, weights: np.ndarray) -> Estimate:
    low, high = (float(end) for end in np.quantile(weights @ values.mean(axis=0) / values.shape[1], [0.025, 0.975]))
    return widened(values.mean(axis=1).tolist(), (low, high), bounds=(0.0, np.inf))


def _error(stack: Sequence[np.ndarray], labels: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return the expected calibration error with a normal interval.

    Every resample has the error of the images and that of drawing them on top, so its quantiles would lie too high; its spread
    alone is used.
    """
    values = [expected_calibration_error(np.exp(log_p), labels, num_bins=NUM_BINS) for log_p in stack]
    drawn = np.mean([_resampled_errors(log_p, labels, weights) for log_p in stack], axis=0)
    mean, reach = float(np.mean(values)), 1.96 * float(drawn.std())
    return widened(values, (mean - reach, mean + reach), bounds=(0.0, 1.0))


def _resampled_errors(log_posterior: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the expected calibration error of each resample, (R,): Σ over bins of |Σ in the bin of (right - confidence)| / N."""
    confidence, right = np.exp(log_posterior).max(axis=1), log_posterior.argmax(axis=1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    gaps = (right - confidence)[:, None] * (bins[:, None] == np.arange(NUM_BINS))  # (N, G)
    return np.asarray(np.abs(weights @ gaps).sum(axis=1) / len(labels))


def by_confidence(stack: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Return mean confidence, share of right answers and its 95 % interval of NUM_GROUPS equal groups of answers, (groups, 4).

    Groups of equal size, from the least sure to the surest: tenths of the range would be empty but for the last one, where
    nearly all answers of a density lie. The interval is Wilson's for the images of a group, since seeds share them.
    """
    log_posterior = np.concatenate(stack)
    confidence = np.exp(log_posterior).max(axis=1)
    right = log_posterior.argmax(axis=1) == np.tile(labels, len(stack))
    rows = []
    for group in np.array_split(np.argsort(confidence, kind="stable"), min(NUM_GROUPS, len(confidence))):
        num_images = max(1, len(group) // len(stack))
        share = float(right[group].mean())
        rows.append((confidence[group].mean(), share, *wilson_interval(share * num_images, num_images)))
    return np.array(rows)
