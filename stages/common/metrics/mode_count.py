"""Mode count: how many of the known modes of the data does a model reach, and how evenly?

`evaluate.load("stages/common/metrics/mode_count.py")`. For data of K equally likely modes, such as stacked digits (Metz et al.,
Unrolled generative adversarial networks, arXiv 1611.02163; Lin et al., PacGAN, arXiv 1712.04086, who count 26,000 samples): how
many modes occur among n samples, and the Kullback-Leibler divergence of their shares from 1/K, in nats. Both depend on n: even
perfect samples reach K (1 - (1 - 1/K)^n) modes only, and have a divergence of about (K - 1) / 2n. So give both beside real ones'.
"""

import math

import datasets
import evaluate
import numpy as np

_DESCRIPTION = (
    "Number of modes among samples, higher is better, and the divergence of their shares from equal ones, lower is better."
)
_INPUTS = """
Args:
    predictions: mode of each sample, int [n], from 0.
    num_modes: K, at least 2.
Returns:
    modes: how many of K occur.
    mode_divergence: KL(shares of the samples || 1/K), nats, from 0 to ln K.
Raises:
    ValueError: no list of modes from 0 to K - 1.
"""


class ModeCount(evaluate.Metric):
    """Modes among samples, and how evenly they are drawn."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def compute(self, *, predictions: np.ndarray, num_modes: int) -> dict[str, float]:
        """Count one whole list."""
        return count_modes(predictions, num_modes)


def count_modes(predictions: np.ndarray, num_modes: int) -> dict[str, float]:
    """Return both figures of int [n]."""
    counts = mode_counts(predictions, num_modes)
    return {
        "modes": int((counts > 0).sum()),
        "mode_divergence": float(_divergence(_self_information(counts).sum(), counts.sum(), num_modes)),
    }


def mode_deviations(predictions: np.ndarray, num_modes: int) -> dict[str, float]:
    """Return the jackknife's standard deviation of both figures over other draws of n samples; it errs upwards.

    Efron and Stein, The jackknife estimate of variance (1981): (n - 1)/n times the sum of squares of what leaving one sample out
    changes. 1.4 to 2.6 times too large in the simulations of its test. Drawing the samples again, with repeats, would lose modes.
    """
    counts = mode_counts(predictions, num_modes)
    n = int(counts.sum())
    counts = counts[counts > 0]
    without = _self_information(counts).sum() - _self_information(counts) + _self_information(counts - 1)
    left_out = {"modes": (counts > 1) + len(counts) - 1.0, "mode_divergence": _divergence(without, n - 1, num_modes)}
    return {key: _jackknife(values, counts, n) for key, values in left_out.items()}


def expected_modes(num_samples: int, num_modes: int) -> float:
    """Return how many modes n samples of the true distribution have on average."""
    return -num_modes * math.expm1(num_samples * math.log1p(-1 / num_modes))


def mode_counts(predictions: np.ndarray, num_modes: int) -> np.ndarray:
    """Return how often each mode occurs, int64 [K]."""
    found = np.asarray(predictions)
    if found.ndim != 1 or len(found) < 2 or found.dtype.kind not in "iu" or num_modes < 2:
        raise ValueError(
            f"a list of two modes or more out of at least 2 is needed, got {found.dtype} {found.shape}, K = {num_modes}"
        )
    if found.min() < 0 or found.max() >= num_modes:
        raise ValueError(f"modes run from 0 to {num_modes - 1}, got {found.min()} to {found.max()}")
    return np.bincount(found, minlength=num_modes)


def _self_information(counts: np.ndarray) -> np.ndarray:
    """Return c ln c, 0 for none."""
    return counts * np.log(np.maximum(counts, 1))


def _divergence(information: np.ndarray, num_samples: int, num_modes: int) -> np.ndarray:
    """Return sum p ln(p K) with p = c / n, out of the sum of c ln c."""
    return np.maximum(information / num_samples - math.log(num_samples) + math.log(num_modes), 0)


def _jackknife(values: np.ndarray, weights: np.ndarray, n: int) -> float:
    mean = (values * weights).sum() / n
    return float(math.sqrt((n - 1) / n * (weights * (values - mean) ** 2).sum()))
