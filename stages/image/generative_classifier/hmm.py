"""A hidden Markov model of images that are read row by row from the top, fitted by Baum-Welch.

Legend: N images, C channels, H height, W width, T = H rows of an image, F = C·W values of a row, S states; i and j are states,
n an image, t a row.

A hidden state walks down the image: q_1 ~ start, then q_t+1 ~ transitions[q_t]; at each row it emits that row's values,
independent Gaussians with means and variances of its own. Equations are those of Rabiner (A Tutorial on Hidden Markov Models,
1989), letters are his as well: b_j(x_t) is the density of a row. Densities of whole images do not fit into a float64, so alpha
and beta are kept as logarithms, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_SLICES, VARIANTS = 8, 2
"""Slices into which the rows are cut at most, and states of each; see `first_guess`.

Measured on training digits that were left over (8 and 32 labels of each class, floor 0.1, five choices of labels; differences in
points of error with 95 % intervals over the choices): 11.1 % and 5.7 % wrong. One state of each slice is worse by 3.1 [2.0, 4.1]
and 4.0 [2.6, 5.4], four slices by 2.8 [1.3, 4.3] and 3.4 [2.2, 4.5]; three states are not separable and better by 1.0 [0.3, 1.6],
with twice the transitions. Left to right: when all states may follow each other it is worse by 0.8 [0.4, 1.2] and not separable.
"""
MOST_STEPS, TOLERANCE = 50, 0.1
"""EM ends after so many steps, or when one gains less than this many nats of an image."""
_LEAST = 1e-250
"""A sum below this may have lost terms to underflow."""


@dataclass(frozen=True, kw_only=True)
class HMM:
    """Parameters.

    Attributes:
        start: P(q_1 = i), (S,).
        transitions: a_ij = P(q_t+1 = j | q_t = i), (S, S).
        means, variances: of the values of a row in each state, (S, F).
    """

    start: np.ndarray
    transitions: np.ndarray
    means: np.ndarray
    variances: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the images say of the states.

    Attributes:
        gamma: P(q_t = i | x), (N, T, S).
        xi: how often j came after i, the sum over images and rows of P(q_t = i, q_t+1 = j | x), (S, S).
        log_likelihood: ln P(x), (N,), nats.
    """

    gamma: np.ndarray
    xi: np.ndarray
    log_likelihood: np.ndarray


def rows_of(images: np.ndarray) -> np.ndarray:
    """Return (N, C, H, W) as rows of pixels with all their channels, (N, T, F) = (N, H, C·W)."""
    return images.swapaxes(1, 2).reshape(len(images), images.shape[2], -1)


def fit(rows: np.ndarray, floor: float) -> HMM:
    """Return the model of `rows`, (N, T, F) with N >= VARIANTS, after EM; no variance is below `floor`. Nothing is random."""
    model, before = first_guess(rows, floor), -np.inf
    for _ in range(MOST_STEPS):
        found = expected(model, rows)
        reached = float(found.log_likelihood.mean())
        if reached - before < TOLERANCE:
            break
        model, before = reestimated(model, rows, found, floor), reached
    return model


def first_guess(rows: np.ndarray, floor: float) -> HMM:
    """Return a model whose states are heights in the image, with VARIANTS ways to look at each.

    The rows are cut into equal slices, and those of a slice into halves along the direction in which they differ most. A state
    stays in its slice or goes on to the next: left to right (eq. 45, and eq. 47 with a reach of one slice).
    """
    num_rows, num_values = rows.shape[1:]
    num_slices = min(num_rows, MOST_SLICES)
    slice_of = np.arange(num_rows) * num_slices // num_rows
    slices = [rows[:, slice_of == height].reshape(-1, num_values) for height in range(num_slices)]
    height_of = np.repeat(np.arange(num_slices), VARIANTS)  # of each state
    allowed = np.isin(height_of - height_of[:, None], (0, 1))
    return HMM(
        start=(height_of == 0) / VARIANTS,
        transitions=allowed / allowed.sum(axis=1, keepdims=True),
        means=np.concatenate([_parted_means(values) for values in slices]),
        variances=np.maximum(np.repeat([values.var(axis=0) for values in slices], VARIANTS, axis=0), floor),
    )


def _parted_means(values: np.ndarray) -> np.ndarray:
    """Return the means of VARIANTS equal parts of `values`, (M, F), ordered along their first principal direction."""
    centred = values - values.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    parts = np.array_split(np.argsort(centred @ direction, kind="stable"), VARIANTS)
    return np.stack([values[part].mean(axis=0) for part in parts])


def log_likelihood(model: HMM, rows: np.ndarray) -> np.ndarray:
    """Return ln P(x), the sum over all paths of the states, (N,), nats."""
    return np.asarray(np.logaddexp.reduce(log_forward(model, log_emissions(model, rows))[:, -1], axis=1))  # eq. 21


def log_emissions(model: HMM, rows: np.ndarray) -> np.ndarray:
    """Return ln b_j(x_t), (N, T, S): of Gaussians with diagonal covariances."""
    precisions = 1 / model.variances
    squares = rows**2 @ precisions.T - 2 * rows @ (model.means * precisions).T + (model.means**2 * precisions).sum(axis=1)
    return np.asarray(-0.5 * (squares + np.log(2 * np.pi * model.variances).sum(axis=1)))


def log_forward(model: HMM, log_b: np.ndarray) -> np.ndarray:
    """Return ln alpha_t(i) = ln P(x_1 ... x_t, q_t = i), (N, T, S)."""
    log_alpha = np.empty_like(log_b)
    with np.errstate(divide="ignore"):
        log_alpha[:, 0] = np.log(model.start) + log_b[:, 0]  # eq. 19
    for t in range(1, log_b.shape[1]):
        log_alpha[:, t] = _log_product(log_alpha[:, t - 1], model.transitions) + log_b[:, t]  # eq. 20
    return log_alpha


def log_backward(model: HMM, log_b: np.ndarray) -> np.ndarray:
    """Return ln beta_t(i) = ln P(x_t+1 ... x_T | q_t = i), (N, T, S)."""
    log_beta = np.zeros_like(log_b)  # eq. 24
    for t in reversed(range(log_b.shape[1] - 1)):
        log_beta[:, t] = _log_product(log_b[:, t + 1] + log_beta[:, t + 1], model.transitions.T)  # eq. 25
    return log_beta


def _log_product(log_values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ln of the sum over i of exp(log_values_ni)·weights_ij, (N, S): a product of matrices, except where it underflows."""
    top = log_values.max(axis=1, keepdims=True)
    sums = np.exp(log_values - top) @ weights
    reached = np.isfinite(log_values[0]) @ (weights > 0)  # by all images alike: every density is above 0
    with np.errstate(divide="ignore"):  # ln 0 where a state cannot be reached
        found = np.log(sums) + top
        if (lost := (sums < _LEAST) & reached).any():
            n, j = np.nonzero(lost)
            found[n, j] = np.logaddexp.reduce(log_values[n] + np.log(weights.T[j]), axis=1)
    return np.asarray(found)


def expected(model: HMM, rows: np.ndarray) -> Expected:
    """Return the expectations of the E step."""
    log_b = log_emissions(model, rows)
    log_alpha, log_beta = log_forward(model, log_b), log_backward(model, log_b)
    total = np.logaddexp.reduce(log_alpha[:, -1], axis=1)  # eq. 21
    i, j = np.nonzero(model.transitions)
    before, after = (log_alpha - total[:, None, None])[:, :-1, i], (log_b + log_beta)[:, 1:, j]
    xi = np.zeros_like(model.transitions)
    xi[i, j] = np.exp(before + np.log(model.transitions[i, j]) + after).sum(axis=(0, 1))  # eq. 37
    gamma = np.exp(log_alpha + log_beta - total[:, None, None])  # eq. 27
    return Expected(gamma=gamma, xi=xi, log_likelihood=total)


def reestimated(model: HMM, rows: np.ndarray, found: Expected, floor: float) -> HMM:
    """Return the model of the M step; a state that no image visits stays as it is.

    Where the best variance lies below `floor`, `floor` is the best that is allowed: the likelihood does not fall.
    """
    visits = found.gamma.sum(axis=(0, 1))[:, None]
    sums, squares = (np.tensordot(found.gamma, values, axes=((0, 1), (0, 1))) for values in (rows, rows**2))
    means = _ratio(sums, visits, model.means)  # eq. 53
    variances = _ratio(squares, visits, model.variances + means**2) - means**2  # eq. 54
    return HMM(
        start=found.gamma[:, 0].mean(axis=0),  # eq. 40a
        transitions=_ratio(found.xi, found.xi.sum(axis=1, keepdims=True), model.transitions),  # eq. 109
        means=means,
        variances=np.maximum(variances, floor),
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return np.where(denominator > _LEAST, numerator / np.maximum(denominator, _LEAST), otherwise)
