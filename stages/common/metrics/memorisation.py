"""Memorisation: does a model draw new images, or does it hand out the ones it was trained on?

`evaluate.load("stages/common/metrics/memorisation.py")`. A copy of the training set has a perfect Frechet distance, precision
and recall; only its distance to the training images gives it away. The yardstick are real images that were not trained on:
new samples lie as far from the training images as those do (compare Meehan et al., arXiv 2004.05675).
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Distances of samples to the nearest training image, against those of real images that were not trained on."
_INPUTS = """
Args:
    predictions: samples as flat vectors, numbers [n, values]; pixels on the grid, or features.
    references: real images that were not trained on, numbers [m, values].
    training: all training images, numbers [t, values].
Returns:
    nearest_neighbour_ratio: median distance of samples to their nearest training image, over that of real images.
        About 1 is as new as real images; 0 is a copy; above 1 tells of samples far from all training images.
    close_share: share of samples nearer to a training image than 99 % of the real images are; about 0.01 by chance.
    duplicate_share: share of samples that equal a training image in every value.
Raises:
    ValueError: not finite tables of equal width, an empty one, or real images that mostly are training images.
"""
_ROWS_AT_ONCE = 256


class Memorisation(evaluate.Metric):
    """Nearest-neighbour ratio, close share and exact duplicates."""

    def _info(self) -> evaluate.MetricInfo:
        vectors = datasets.Sequence(datasets.Value("float64"))
        features = datasets.Features({"predictions": vectors, "references": vectors})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def compute(self, *, predictions: np.ndarray, references: np.ndarray, training: np.ndarray) -> dict[str, float]:
        """Compare whole sets, which need not be of one size."""
        return closeness(nearest("predictions", predictions, training)[0], nearest("references", references, training)[0])


def nearest(name: str, vectors: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of each of [n, values] to its nearest training vector, float64 [n], and that one's row, int64 [n].

    Exact for whole numbers. `name` is what the vectors are called in an error.
    """
    x, t = np.asarray(vectors, dtype=np.float64), np.asarray(training, dtype=np.float64)
    for label, rows in ((name, x), ("training", t)):
        if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
            raise ValueError(f"{label}: a table [images, values] of finite numbers is needed, got shape {rows.shape}")
    if x.shape[1] != t.shape[1]:
        raise ValueError(f"{name} have {x.shape[1]} values and training images {t.shape[1]}; they must be alike")
    norms, squared, found = np.sum(t**2, axis=1), [], []
    for block in np.split(x, range(_ROWS_AT_ONCE, len(x), _ROWS_AT_ONCE)):
        to_all = norms[None, :] - 2 * block @ t.T  # |a - b|^2 = |a|^2 - 2 a.b + |b|^2, exact for whole numbers in float64
        found.append(np.argmin(to_all, axis=1))
        squared.append(np.min(to_all, axis=1) + np.sum(block**2, axis=1))
    return np.sqrt(np.maximum(np.concatenate(squared), 0)), np.concatenate(found)


def closeness(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Return the three figures of two lists of distances to the nearest training image."""
    usual = float(np.median(references))
    if not usual > 0:
        raise ValueError("references: at least half of the real images stand in the training images; split the data anew")
    return {
        "nearest_neighbour_ratio": float(np.median(predictions) / usual),
        "close_share": float(np.mean(predictions < np.quantile(references, 0.01))),
        "duplicate_share": float(np.mean(predictions == 0)),
    }
