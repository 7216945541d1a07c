"""Frechet distance between two sets of feature vectors, each seen as one Gaussian.

`evaluate.load("stages/common/metrics/frechet_distance.py")`. With means m and covariances S (divided by n - 1),
    d² = |m_p - m_r|² + tr S_p + tr S_r - 2 tr (S_p S_r)^½
(Dowson and Landau, 1982, eq. 4; Heusel et al., arXiv 1706.08500, eq. 6). tr (S_p S_r)^½ is the sum of the singular values of
S_p^½ S_r^½: their squares are the eigenvalues of S_r^½ S_p S_r^½, a symmetric matrix, so no root of a product that
rounding made complex is ever taken. The value falls with n even for real images: compare it only at one n.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Squared distance between the Gaussians fitted to two sets of feature vectors. 0 is the same; lower is better."
_INPUTS = """
Args:
    predictions: features of the samples, float [n, features].
    references: features of real images, float [m, features]; m may differ from n.
Returns:
    frechet_distance: squared, in squared units of the features.
Raises:
    ValueError: not two finite tables of equal width, or no more rows than features: a covariance would have no full rank.
"""


class FrechetDistance(evaluate.Metric):
    """Squared Frechet distance of two Gaussians."""

    def _info(self) -> evaluate.MetricInfo:
        vectors = datasets.Sequence(datasets.Value("float64"))
        features = datasets.Features({"predictions": vectors, "references": vectors})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compare two whole sets, which need not be of one size."""
        return {"frechet_distance": frechet(predictions, references)}


def frechet(predictions: np.ndarray, references: np.ndarray) -> float:
    """Return d² of float [n, features] and float [m, features], in float64."""
    (mean_p, root_p), (mean_r, root_r) = _gaussian("predictions", predictions), _gaussian("references", references)
    if len(mean_p) != len(mean_r):
        raise ValueError(f"predictions have {len(mean_p)} features and references {len(mean_r)}; use one extractor for both")
    overlap = np.linalg.svd(root_p @ root_r, compute_uv=False).sum()
    distance = np.sum((mean_p - mean_r) ** 2) + np.sum(root_p**2) + np.sum(root_r**2) - 2 * overlap
    return max(0.0, float(distance))


def _gaussian(name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean [features] and the symmetric root of the covariance [features, features]."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"{name}: a table [images, features] of finite values is needed, got shape {rows.shape}")
    if len(rows) <= rows.shape[1]:
        raise ValueError(f"{name}: {len(rows)} images for {rows.shape[1]} features; more images than features are needed")
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean) / (len(rows) - 1))
    return mean, (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
