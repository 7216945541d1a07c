"""Class histogram: does a model draw every kind of image as often as there are real ones?

`evaluate.load("stages/common/metrics/class_histogram.py")`. Total variation of two histograms of labels, ½ Σ |p_c - q_c|: the
share of samples that would have to change their class. Label both sets by the same classifier, so that its errors cancel.
"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = "Total variation between the class histograms of samples and of real images, from 0 to 1. Lower is better."
_INPUTS = """
Args:
    predictions: class of each sample, int [n].
    references: class of each real image, int [m]; m may differ from n.
Returns:
    total_variation: from 0 to 1.
    missing_classes: classes of the real images that no sample has.
Raises:
    ValueError: not two lists of labels from 0.
"""


class ClassHistogram(evaluate.Metric):
    """Total variation of class histograms."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compare two whole lists, which need not be of one length."""
        return compare_labels(predictions, references)


def compare_labels(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Return both figures of int [n] and int [m]."""
    labels = {"predictions": np.asarray(predictions), "references": np.asarray(references)}
    for name, found in labels.items():
        if found.ndim != 1 or not len(found) or found.dtype.kind not in "iu" or found.min() < 0:
            raise ValueError(f"{name}: a list of labels 0, 1, ... is needed, got {found.dtype} of shape {found.shape}")
    num_classes = int(max(found.max() for found in labels.values())) + 1
    p, q = (np.bincount(found, minlength=num_classes) / len(found) for found in labels.values())
    return {"total_variation": float(np.abs(p - q).sum() / 2), "missing_classes": int(np.sum((p == 0) & (q > 0)))}
