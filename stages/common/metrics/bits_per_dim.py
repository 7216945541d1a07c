"""Bits per dimension: how many bits a model needs for each value of an image it has not seen.

`evaluate.load("stages/common/metrics/bits_per_dim.py")`. -log2 P(image) / (C·H·W), mean over images. Such numbers are not all
of one kind: an exact probability, a lower bound on it (so the bits are an upper bound), and an estimate by a numerical solver
must not be averaged together, nor compared without saying so.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Mean negative log2-probability of images, per value. Lower is better."
_INPUTS = """
Args:
    predictions: bits per dimension of each image (float).
    references: what kind of number each is: "exact", "lower bound" (on the probability) or "numerical" (str).
Returns:
    bits_per_dim: the mean.
    kind: the one kind of all of them.
Raises:
    ValueError: a value is not finite, the kinds are mixed, or one is unknown.
"""
_KINDS = ("exact", "lower bound", "numerical")


class BitsPerDim(evaluate.Metric):
    """Mean bits per dimension of one kind."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions: list[float], references: list[str]) -> dict[str, float | str]:
        bits, kinds = np.asarray(predictions, dtype=np.float64), sorted(set(references))
        if len(kinds) != 1 or kinds[0] not in _KINDS:
            raise ValueError(f"references: values of one kind out of {', '.join(_KINDS)} are needed, got {', '.join(kinds)}")
        if not np.isfinite(bits).all():
            row = int(np.flatnonzero(~np.isfinite(bits))[0])
            raise ValueError(f"predictions: image {row} has {bits[row]} bits/dim; every value must be finite, none is left out")
        return {"bits_per_dim": float(bits.mean()), "kind": kinds[0]}
