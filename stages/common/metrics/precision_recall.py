"""Precision and recall, density and coverage: does a set of samples look real, and does it show all that is real?

`evaluate.load("stages/common/metrics/precision_recall.py")`. Around each vector lies a ball that reaches to its k-th
nearest neighbour in its own set. Precision is the share of samples inside some real image's ball, recall the share of real
images inside some sample's ball (Kynkaanniemi et al., arXiv 1904.06991, eq. 1 and 2). Density counts the real balls around
a sample, divided by k; coverage is the share of real balls that hold a sample (Naeem et al., arXiv 2002.09797, eq. 3 and 4).
The last two are not moved by one outlier whose ball is huge.
"""

from collections.abc import Iterator

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Fidelity (precision, density) and diversity (recall, coverage) of samples in a feature space. Higher is better."
_INPUTS = """
Args:
    predictions: features of the samples, float [n, features], n > k.
    references: features of real images, float [m, features], m > k; m may differ from n.
    nearest_k: k, by default 5.
Returns:
    precision, recall, coverage: shares from 0 to 1.
    density: from 0; about 1 for real images, more where samples crowd.
Raises:
    ValueError: not two finite tables of equal width, or no more than k rows.
"""
ROWS_AT_ONCE = 1024


class PrecisionRecall(evaluate.Metric):
    """Precision, recall, density and coverage by k-nearest-neighbour balls."""

    def _info(self) -> evaluate.MetricInfo:
        vectors = datasets.Sequence(datasets.Value("float64"))
        features = datasets.Features({"predictions": vectors, "references": vectors})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def compute(self, *, predictions: np.ndarray, references: np.ndarray, nearest_k: int = 5) -> dict[str, float]:
        """Compare two whole sets, which need not be of one size."""
        return balls(predictions, references, nearest_k)


def balls(predictions: np.ndarray, references: np.ndarray, nearest_k: int = 5) -> dict[str, float]:
    """Return the four figures of float [n, features] and float [m, features]."""
    fake, real = _checked("predictions", predictions, nearest_k), _checked("references", references, nearest_k)
    if fake.shape[1] != real.shape[1]:
        raise ValueError(f"predictions have {fake.shape[1]} features, references {real.shape[1]}; use one extractor for both")
    real_radii, fake_radii = _radii(real, nearest_k), _radii(fake, nearest_k)
    num_balls, covered, recalled = np.zeros(len(fake)), [], []
    for rows, distances in _distances_in_blocks(real, fake):
        in_real_ball = distances < real_radii[rows, None]
        num_balls += in_real_ball.sum(axis=0)
        covered.append(in_real_ball.any(axis=1))
        recalled.append((distances < fake_radii[None, :]).any(axis=1))
    return {
        "precision": float((num_balls > 0).mean()),
        "recall": float(np.concatenate(recalled).mean()),
        "density": float(num_balls.mean() / nearest_k),
        "coverage": float(np.concatenate(covered).mean()),
    }


def _radii(rows: np.ndarray, nearest_k: int) -> np.ndarray:
    """Return the squared distance of each row to its k-th nearest other row, [rows]."""
    radii = np.empty(len(rows))
    for block, distances in _distances_in_blocks(rows, rows):
        distances[np.arange(len(distances)), np.arange(block.start, block.stop)] = 0  # a row is its own nearest, at place 0
        radii[block] = np.partition(distances, nearest_k, axis=1)[:, nearest_k]
    return radii


def _distances_in_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield some rows of a, and |a_i - b_j|² of them, [ROWS_AT_ONCE, len(b)]: memory does not grow with len(a)·len(b)."""
    norms = np.sum(b**2, axis=1)[None, :]
    for start in range(0, len(a), ROWS_AT_ONCE):
        block = slice(start, min(start + ROWS_AT_ONCE, len(a)))
        yield block, np.maximum(np.sum(a[block] ** 2, axis=1)[:, None] + norms - 2 * a[block] @ b.T, 0)


def _checked(name: str, values: np.ndarray, nearest_k: int) -> np.ndarray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"{name}: a table [images, features] of finite values is needed, got shape {rows.shape}")
    if not len(rows) > nearest_k >= 1:
        raise ValueError(f"{name}: {len(rows)} images, nearest_k is {nearest_k}; more images than neighbours are needed")
    return rows
