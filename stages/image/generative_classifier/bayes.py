"""Bayes' rule, and one number that makes a classifier's confidence fit.

Legend: N images, K classes.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp

LARGEST_LOG_TEMPERATURE = 8.0
"""Temperatures are looked for between exp(-8) and exp(8)."""


def bayes(log_likelihood: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ln P(c | x), (N, K), and ln P(x), (N,): P(c | x) = P(x | c)·P(c) / P(x), P(x) = sum over c of P(x | c)·P(c).

    Args:
        log_likelihood: ln P(x | c), (N, K), nats.
        prior: P(c), (K,), all above 0.
    """
    joint = log_likelihood + np.log(prior)
    evidence = logsumexp(joint, axis=1)
    return joint - evidence[:, None], evidence


def losses(log_posterior: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return -ln P(true class | x) of each image, (N,), nats; their mean is the log-loss."""
    return np.asarray(-log_posterior[np.arange(len(labels)), labels])


def temperature(log_posterior: np.ndarray, labels: np.ndarray) -> float:
    """Return T that makes softmax(ln P / T) have the least log-loss (Guo et al., arXiv 1706.04599, section 4.2).

    One image in N + 2 counts as of any class (after Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2.2):
    where N images were all named right, certainty would win, and the first error after them would cost without limit.
    """
    num_images, num_classes = log_posterior.shape
    share = 1 / ((num_images + 2) * num_classes)

    def loss(log_t: float) -> float:
        values = log_softmax(log_posterior * math.exp(-log_t), axis=1)
        return (1 - num_classes * share) * float(losses(values, labels).mean()) - share * float(values.sum(axis=1).mean())

    bounds = (-LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded").x))
