"""Pairs of classical classifiers, fitted to the same choices of labels: by scikit-learn, the hidden Markov model by `hmm`.

Legend: N images, K classes, C channels, H height, W width, D = C·H·W values of an image.

Ng and Jordan (On Discriminative vs. Generative Classifiers, 2001) compare pairs that can say the same thing of p(c | x), one
fitted by the joint likelihood and one by the conditional. Where a setting matters (the floor of variances, C) it is chosen by
cross-validation on the labelled images themselves, from five values, on both sides alike; one label of each class cannot be
cut into folds, and the middle value is taken.

The hidden Markov model has no such partner here. Walked through its states at one fixed pace, and with one variance for all
classes, it would have the linear log odds of logistic regression on the rows put end to end, so that stands against it; but
what a walk that is not known adds to p(c | x) can only be said by a hidden conditional random field (Quattoni et al., Hidden
Conditional Random Fields, 2007), which is left out. Who wins of these two tells of the models as much as of how they are fitted.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import log_softmax
from scipy.stats import multivariate_normal
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from stages.common.images.grid import Grid, Split
from stages.common.images.image_sets import ImageSet
from stages.common.images.labels import label_subset
from stages.image.generative_classifier import hmm
from stages.image.generative_classifier.bayes import bayes
from stages.image.generative_classifier.cells import Cell, Judged, Side

NAIVE_BAYES, SHARED, MIXTURE, MARKOV = "naive Bayes", "Gaussians, one covariance", "Gaussian mixtures", "hidden Markov models"
LOGISTIC, UNREGULARISED, SVM = "logistic regression", "logistic regression, unregularised", "RBF-SVM"
PAIRS = (
    (NAIVE_BAYES, LOGISTIC),
    (NAIVE_BAYES, UNREGULARISED),
    (SHARED, LOGISTIC),
    (SHARED, UNREGULARISED),
    (MIXTURE, SVM),
    (MARKOV, LOGISTIC),
)
"""(generative, discriminative)."""
FLOORS, PENALTIES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1), (1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Values that are tried; variances are of pixels in [0, 1]."""
MOST_STEPS = 300
LABELS_FOR_A_COMPONENT = 16


@dataclass(frozen=True)
class Answers:
    """ln P(c | x), (N, K), and ln P(x), (N,), if the model has one."""

    log_posterior: np.ndarray
    log_evidence: np.ndarray | None


Fitted = Callable[[np.ndarray], Answers]
Fit = Callable[[np.ndarray, np.ndarray, float], Fitted]


@dataclass(frozen=True)
class Method:
    """A classical classifier: its side, the values of its setting (one: nothing to choose), and the fewest labels it takes."""

    side: Side
    fit: Fit
    grid: tuple[float, ...]
    least_labels: int = 1


def classical_cells(
    train: Split, grid: Grid, sets: Sequence[ImageSet], cells: Sequence[tuple[int, int]], *, num_folds: int
) -> list[Cell]:
    """Fit every classical classifier at each of `cells`, (labels of each class, seed); those that cannot are left out.

    A covariance, a mixture or a hidden Markov model cannot be fitted to one image of each class.
    """
    methods = _methods(grid)
    inputs = {one.name: _features(one.images.numpy(), grid.levels) for one in sets}
    found = []
    with threadpool_limits(1):  # sums in another order would give other last digits on another machine
        for num_labels, seed in cells:
            chosen = label_subset(train, grid.classes, num_labels=num_labels, seed=seed)
            x, y = _features(chosen.images.numpy(), grid.levels), chosen.labels.numpy()
            for name, method in methods.items():
                if num_labels >= method.least_labels:
                    model = method.fit(x, y, _setting(method, x, y, min(num_folds, len(y) // len(grid.classes)), seed))
                    judged = {one.name: _judged(model(inputs[one.name]), one) for one in sets}
                    latency = _latency_ms(model, inputs[sets[0].name])
                    found.append(
                        Cell(
                            model=name,
                            side=method.side,
                            num_labels=num_labels,
                            seed=seed,
                            sets=judged,
                            latency_ms=latency,
                        )
                    )
    return found


def _latency_ms(model: Fitted, images: np.ndarray) -> float:
    """Return wall milliseconds of one answer; the model has answered before, so nothing is loaded now."""
    begin = time.perf_counter()
    model(images)
    return (time.perf_counter() - begin) / len(images) * 1000


def _features(images: np.ndarray, levels: int) -> np.ndarray:
    return images.reshape(len(images), -1) / (levels - 1)


def _judged(answers: Answers, one: ImageSet) -> Judged:
    return Judged(
        log_posterior=answers.log_posterior,
        log_evidence=answers.log_evidence,
        labels=one.labels.numpy(),
        role=one.role,
        sha256=one.sha256,
    )


def _setting(method: Method, x: np.ndarray, y: np.ndarray, num_folds: int, seed: int) -> float:
    """Return the value with the most right answers on held-out folds, among equals the first; the middle one without folds."""
    smallest = int(np.bincount(y).min())
    if len(method.grid) == 1 or num_folds < 2 or smallest - -(-smallest // num_folds) < method.least_labels:
        return method.grid[len(method.grid) // 2]
    right = np.zeros(len(method.grid))
    for fitted, held_out in StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(x, y):
        for index, value in enumerate(method.grid):
            answers = method.fit(x[fitted], y[fitted], value)(x[held_out])
            right[index] += (answers.log_posterior.argmax(axis=1) == y[held_out]).sum()
    return method.grid[int(right.argmax())]


def _naive_bayes(x: np.ndarray, y: np.ndarray, floor: float) -> Fitted:
    # scikit-learn adds var_smoothing times the largest variance to all; pixels that never change have none of their own.
    model = GaussianNB(var_smoothing=floor / max(float(x.var(axis=0).max()), 1e-12)).fit(x, y)

    def answers(values: np.ndarray) -> Answers:
        joint = model.predict_joint_log_proba(values)
        return Answers(*bayes(joint - np.log(model.class_prior_), model.class_prior_))

    return answers


def _shared_covariance(x: np.ndarray, y: np.ndarray, _: float) -> Fitted:
    # The solver "svd" ignores shrinkage, and "eigen" fails on pixels that never change.
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y)
    covariance = model.covariance_ + 1e-4 * np.eye(x.shape[1])

    def answers(values: np.ndarray) -> Answers:
        likelihood = [multivariate_normal(mean, covariance).logpdf(values).reshape(len(values)) for mean in model.means_]
        return Answers(*bayes(np.stack(likelihood, axis=1), model.priors_))

    return answers


def _mixtures(x: np.ndarray, y: np.ndarray, floor: float) -> Fitted:
    classes, counts = np.unique(y, return_counts=True)
    models = [
        _quietly(GaussianMixture(max(1, count // LABELS_FOR_A_COMPONENT), reg_covar=floor, random_state=0), x[y == label])
        for label, count in zip(classes, counts, strict=True)
    ]

    def answers(values: np.ndarray) -> Answers:
        likelihood = np.stack([model.score_samples(values) for model in models], axis=1)
        return Answers(*bayes(likelihood, counts / counts.sum()))

    return answers


def _markov(x: np.ndarray, y: np.ndarray, floor: float, *, grid: Grid) -> Fitted:
    classes, counts = np.unique(y, return_counts=True)
    rows = hmm.rows_of(x.reshape(-1, *grid.shape))
    models = [hmm.fit(rows[y == label], floor) for label in classes]

    def answers(values: np.ndarray) -> Answers:
        rows = hmm.rows_of(values.reshape(-1, *grid.shape))
        likelihood = np.stack([hmm.log_likelihood(model, rows) for model in models], axis=1)
        return Answers(*bayes(likelihood, counts / counts.sum()))

    return answers


def _logistic(x: np.ndarray, y: np.ndarray, c: float) -> Fitted:
    model = _quietly(LogisticRegression(C=c, max_iter=MOST_STEPS), x, y)
    return lambda values: Answers(log_softmax(_all_columns(model.decision_function(values)), axis=1), None)


def _svm(x: np.ndarray, y: np.ndarray, c: float) -> Fitted:
    # An SVM has no probabilities; the softmax of its scores orders the classes as it does, and a temperature makes it fit.
    model = SVC(C=c, gamma="scale").fit(x, y)
    return lambda values: Answers(log_softmax(_all_columns(model.decision_function(values)), axis=1), None)


def _all_columns(scores: np.ndarray) -> np.ndarray:
    """Return one score for each class; for two classes scikit-learn gives the second's alone."""
    return scores if scores.ndim == 2 else np.stack([np.zeros_like(scores), scores], axis=1)


def _quietly(model: Any, *data: np.ndarray) -> Any:
    """Fit `model`; that it stops at its last step is no fault: without a penalty, separable classes have no optimum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*data)


def _methods(grid: Grid) -> Mapping[str, Method]:
    return {
        NAIVE_BAYES: Method("generative", _naive_bayes, FLOORS),
        SHARED: Method("generative", _shared_covariance, (0.0,), least_labels=2),
        MIXTURE: Method("generative", _mixtures, FLOORS, least_labels=2),
        MARKOV: Method("generative", partial(_markov, grid=grid), FLOORS, least_labels=hmm.VARIANTS),
        LOGISTIC: Method("discriminative", _logistic, PENALTIES),
        UNREGULARISED: Method("discriminative", _logistic, (np.inf,)),
        SVM: Method("discriminative", _svm, PENALTIES),
    }
