"""Vendi score: how many different images a set is worth.

`evaluate.load("stages/common/metrics/vendi_score.py")`. exp of the entropy of the eigenvalues of K / n, where K_ij is the
cosine of the features of images i and j (Friedman and Dieng, arXiv 2210.02410, definition 3.1). It is 1 for one image
repeated, m for m kinds of image at right angles to each other in equal shares. It needs no real images: print theirs beside it.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Effective number of different images in a set, under the cosine of their features. Higher is more varied."
_INPUTS = """
Args:
    predictions: features of the samples, float [n, features], n >= 2.
Returns:
    vendi_score: from 1 to min(n, features).
Raises:
    ValueError: not a finite table of two or more rows, or a vector of zeros, which has no direction.
"""


class VendiScore(evaluate.Metric):
    """exp of the entropy of the cosine kernel's eigenvalues."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64"))})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def compute(self, *, predictions: np.ndarray) -> dict[str, float]:
        """Measure one whole set."""
        return {"vendi_score": vendi(predictions)}


def vendi(predictions: np.ndarray) -> float:
    """Return the Vendi score of float [n, features]."""
    rows = np.asarray(predictions, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or not np.isfinite(rows).all():
        raise ValueError(f"predictions: a finite table [images, features] of two images or more is needed, got {rows.shape}")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError(f"predictions: row {int(norms.argmin())} is all zeros; a cosine needs a direction")
    unit = rows / norms
    # X Xᵀ (n x n) and Xᵀ X (features x features) have the same eigenvalues above 0; the smaller one is taken.
    gram = unit @ unit.T if len(unit) < unit.shape[1] else unit.T @ unit
    shares = np.linalg.eigvalsh(gram / len(unit))
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))
