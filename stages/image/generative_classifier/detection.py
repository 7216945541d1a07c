"""Can a classifier tell that an image is of no class it knows? The area under the ROC curve of a score.

Legend: S seeds, N test images, M foreign images, R resamples.

AUROC is the chance that a test image scores higher than a foreign one, ties half (Hanley and McNeil, 1982): 0.5 is no idea.
Scores are ln P(x) of a generative model, and the largest P(c | x) of any classifier (Hendrycks and Gimpel, arXiv 1610.02136).
"""

from __future__ import annotations

import numpy as np


def wins(test: np.ndarray, foreign: np.ndarray) -> np.ndarray:
    """Return 1 where a test image scores higher than a foreign one, 1/2 where as high, (N, M), of scores (N,) and (M,)."""
    return (test[:, None] > foreign) + 0.5 * (test[:, None] == foreign)


def resampled_auroc(won: np.ndarray, *, seed: int, num_resamples: int) -> tuple[float, np.ndarray]:
    """Return the AUROC, mean over seeds, and its values when test images, foreign images and seeds are drawn again, (R,).

    Scores of one shape and seed get the same draws, so differences between them are paired.

    Args:
        won: `wins` of each seed, (S, N, M).
        seed: of the draws.
        num_resamples: R.
    """
    generator = np.random.default_rng(seed)
    shares = [generator.multinomial(size, np.full(size, 1 / size), size=num_resamples) / size for size in won.shape]
    drawn = np.einsum("rs,rn,snm,rm->r", *(shares[0], shares[1], won, shares[2]), optimize=True)
    # Where every draw is 1, sums end a rounding away from it.
    return float(won.mean()), np.clip(drawn.round(12), 0.0, 1.0)
