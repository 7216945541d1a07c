"""Kernel distance (KID): the squared maximum mean discrepancy of two sets of feature vectors, without bias in n.

`evaluate.load("stages/common/metrics/kernel_distance.py")`. With k(x, y) = (x·y / features + 1)³,
    MMD² = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j)
(Binkowski et al., arXiv 1801.01401, section 3; Gretton et al., JMLR 2012, eq. 3). It may fall below 0.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Squared maximum mean discrepancy under a polynomial kernel of degree 3. 0 is the same; lower is better."
_INPUTS = """
Args:
    predictions: features of the samples, float [n, features], n >= 4.
    references: features of real images, float [m, features], m >= 2; m may differ from n.
    num_subsets: how many random halves of the samples the interval stands on.
    seed: of those halves.
Returns:
    kernel_distance: of all rows.
    kernel_distance_low, kernel_distance_high: its 95 % interval over samples. A half of the samples, drawn without
        replacement, is as far from the whole as the whole is from all samples that there could be (delete-d jackknife, Shao
        and Wu, 1989); drawing with replacement would compare an image with itself.
Raises:
    ValueError: not two finite tables of equal width, or too few rows.
"""
ROWS_AT_ONCE = 1024


class KernelDistance(evaluate.Metric):
    """Squared MMD with its interval."""

    def _info(self) -> evaluate.MetricInfo:
        vectors = datasets.Sequence(datasets.Value("float64"))
        features = datasets.Features({"predictions": vectors, "references": vectors})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def compute(
        self, *, predictions: np.ndarray, references: np.ndarray, num_subsets: int = 100, seed: int = 0
    ) -> dict[str, float]:
        """Compare two whole sets, which need not be of one size."""
        x, y = _checked(predictions, references, least=4)
        generator = np.random.default_rng(seed)
        num_half = len(x) // 2
        halves = [squared_mmd(x[generator.permutation(len(x))[:num_half]], y) for _ in range(num_subsets)]
        value = squared_mmd(x, y)
        reach = 1.96 * float(np.std(halves)) * np.sqrt(num_half / (len(x) - num_half))
        return {"kernel_distance": value, "kernel_distance_low": value - reach, "kernel_distance_high": value + reach}


def squared_mmd(predictions: np.ndarray, references: np.ndarray) -> float:
    """Return the unbiased MMD² of float [n, features] and float [m, features], in float64."""
    x, y = _checked(predictions, references, least=2)
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * _sums(x, y)[0] / (len(x) * len(y))


def _sums(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the sum of k(x_i, y_j) over all i, j, and over i = j; memory does not grow with len(x)·len(y)."""
    total, diagonal = 0.0, 0.0
    for start in range(0, len(x), ROWS_AT_ONCE):
        base = x[start : start + ROWS_AT_ONCE] @ y.T / x.shape[1] + 1
        values = base * base * base  # many times faster than a power of floats
        total += float(values.sum())
        diagonal += float(np.trace(values, offset=start))
    return total, diagonal


def _mean_of_pairs(x: np.ndarray) -> float:
    total, diagonal = _sums(x, x)
    return (total - diagonal) / (len(x) * (len(x) - 1))


def _checked(predictions: np.ndarray, references: np.ndarray, *, least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(references, dtype=np.float64)
    for name, rows, fewest in (("predictions", x, least), ("references", y, 2)):
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise ValueError(f"{name}: a table [images, features] of finite values is needed, got shape {rows.shape}")
        if len(rows) < fewest:
            raise ValueError(f"{name}: {len(rows)} images; at least {fewest} are needed")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"predictions have {x.shape[1]} features and references {y.shape[1]}; use one extractor for both")
    return x, y
