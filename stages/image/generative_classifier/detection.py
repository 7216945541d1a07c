"""Can a classifier tell that an image is of no class it knows? The area under the ROC curve of a score.

Legend: S seeds, N test images, M foreign images, R resamples.

AUROC is the chance that a test image scores higher than a foreign one, ties half (Hanley and McNeil, 1982): 0.5 is no idea.
Scores are ln P(x) of a generative model, and the largest P(c | x) of any classifier (Hendrycks and Gimpel, arXiv 1610.02136).
"""

from __future__ import annotations

import numpy as np

from stages.image.generative_classifier.estimates import multiplicities


def wins(test: np.ndarray, foreign: np.ndarray) -> np.ndarray:
    """Return 1 where a test image scores higher than a foreign one, 1/2 where as high, (N, M), of scores (N,) and (M,)."""
    return (test[:, None] > foreign) + 0.5 * (test[:, None] == foreign)


def resampled_auroc(won: np.ndarray, *, seed: int, num_resamples: int) -> np.ndarray:
    """Return the AUROC, mean over seeds, when test images and foreign images are drawn again, (R,).

    Scores of one shape and seed get the same draws, so differences between them are paired.

    Args:
        won: `wins` of each seed, (S, N, M).
        seed: of the draws.
        num_resamples: R.
    """
    _, num_test, num_foreign = won.shape
    test = multiplicities(num_test, seed=seed, num_resamples=num_resamples) / num_test
    foreign = multiplicities(num_foreign, seed=seed + 1, num_resamples=num_resamples) / num_foreign
    drawn = np.einsum("rn,nm,rm->r", test, won.mean(axis=0), foreign, optimize=True)
    # Where every draw is 1, sums end a rounding away from it.
    return np.clip(drawn.round(12), 0.0, 1.0)
