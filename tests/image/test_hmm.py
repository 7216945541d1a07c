"""The hidden Markov model of the rows of an image: against sums over all paths, and against what EM promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from stages.common.images.grid import load_split
from stages.image.generative_classifier.hmm import (
    HMM,
    MOST_SLICES,
    TOLERANCE,
    VARIANTS,
    expected,
    first_guess,
    fit,
    log_likelihood,
    reestimated,
    rows_of,
)
from tests.image.digits import digits_artifact

ANY_ORDER, LEFT_TO_RIGHT = np.ones((3, 3)), np.triu(np.ones((3, 3)))


def model(deviation, *, allowed=ANY_ORDER):
    """Three states of two values each."""
    generator = np.random.default_rng(1)
    chances = generator.random((3, 3)) * allowed
    return HMM(
        start=np.array([0.5, 0.3, 0.2]),
        transitions=chances / chances.sum(axis=1, keepdims=True),
        means=generator.random((3, 2)),
        variances=deviation**2 * generator.uniform(0.5, 1.5, (3, 2)),
    )


def log_paths(one, image):
    """Return ln P(x, q) of every path q of the states, one by one."""
    with np.errstate(divide="ignore"):
        start, transitions = np.log(one.start), np.log(one.transitions)
    emissions = norm.logpdf(image[:, None], one.means, np.sqrt(one.variances)).sum(axis=2)
    return {
        path: start[path[0]]
        + sum(transitions[i, j] for i, j in itertools.pairwise(path))
        + sum(emissions[t, i] for t, i in enumerate(path))
        for path in itertools.product(range(3), repeat=len(image))
    }


@pytest.mark.parametrize("deviation", [0.3, 0.005])
@pytest.mark.parametrize("allowed", [ANY_ORDER, LEFT_TO_RIGHT])
def test_the_forward_algorithm_is_the_sum_over_all_paths(deviation, allowed):
    one, images = model(deviation, allowed=allowed), np.random.default_rng(2).random((5, 4, 2))
    paths = [logsumexp(list(log_paths(one, image).values())) for image in images]
    assert log_likelihood(one, images) == pytest.approx(paths, rel=1e-9)
    assert expected(one, images).log_likelihood == pytest.approx(paths, rel=1e-9)


def test_a_path_that_was_far_behind_and_wins_in_the_end_is_not_lost():
    near = np.array([[0.0], [0.0], [1.0]])
    one = HMM(
        start=np.array([0.5, 0.5, 0.0]),
        transitions=np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 1.0]]),
        means=np.array([[0.0], [0.1], [1.0]]),
        variances=np.full((3, 1), 1e-6),  # the second state is 5,000 nats behind at each of the first rows
    )
    found = expected(one, near[None])
    assert found.log_likelihood[0] == pytest.approx(logsumexp(list(log_paths(one, near).values())), rel=1e-9)
    assert found.gamma[0].argmax(axis=1).tolist() == [1, 1, 2]


def test_the_chances_of_states_and_of_their_successions_are_those_of_all_paths():
    one, images = model(0.3), np.random.default_rng(3).random((4, 4, 2))
    found = expected(one, images)
    assert found.gamma.sum(axis=2) == pytest.approx(1.0)
    xi = np.zeros((3, 3))
    for image, gamma in zip(images, found.gamma, strict=True):
        paths = log_paths(one, image)
        total = logsumexp(list(paths.values()))
        visits = np.zeros((4, 3))
        for path, log_p in paths.items():
            visits[range(4), path] += np.exp(log_p - total)
            for i, j in itertools.pairwise(path):
                xi[i, j] += np.exp(log_p - total)
        assert gamma == pytest.approx(visits)
    assert found.xi == pytest.approx(xi)


def digits(tmp_path, label=8, num=20):
    """Return rows of `num` digits, (N, 8, 8), in [0, 1]."""
    train = load_split(digits_artifact(tmp_path / "digits"), "train")
    return rows_of(train.images[train.labels == label][:num].numpy() / 16)


@pytest.mark.parametrize("floor", [1e-4, 1e-1])
def test_no_step_of_em_makes_the_images_less_likely(tmp_path, floor):
    rows = digits(tmp_path)
    one, reached = first_guess(rows, floor), []
    for _ in range(25):
        found = expected(one, rows)
        reached.append(found.log_likelihood.mean())
        one = reestimated(one, rows, found, floor)
        assert one.variances.min() >= floor
    assert np.diff(reached).min() > -1e-9
    assert reached[-1] > reached[0] + 1


def test_em_ends_when_a_step_gains_too_little(tmp_path):
    rows = digits(tmp_path)
    one = fit(rows, 0.1)
    further = reestimated(one, rows, expected(one, rows), 0.1)
    assert log_likelihood(one, rows).mean() > log_likelihood(first_guess(rows, 0.1), rows).mean() + 1
    assert log_likelihood(further, rows).mean() - log_likelihood(one, rows).mean() < TOLERANCE


def test_em_finds_the_model_that_made_the_images():
    generator = np.random.default_rng(4)
    start, transitions = np.array([0.7, 0.3]), np.array([[0.9, 0.1], [0.3, 0.7]])
    means, deviations = np.array([[0.2, 0.7], [0.8, 0.4]]), np.array([[0.05, 0.1], [0.1, 0.05]])
    states = np.empty((300, 20), dtype=int)
    states[:, 0] = generator.random(300) > start[0]
    for t in range(1, 20):
        states[:, t] = generator.random(300) > transitions[states[:, t - 1], 0]
    rows = generator.normal(means[states], deviations[states])
    half = np.full((2, 2), 0.5)
    one = HMM(start=half[0], transitions=half, means=np.array([[0.4, 0.5], [0.6, 0.5]]), variances=0.1 * half)
    for _ in range(30):
        one = reestimated(one, rows, expected(one, rows), 1e-4)
    drawn = (states[:, 0] == 0).mean()  # of 300 first states
    assert one.start == pytest.approx([drawn, 1 - drawn], abs=0.01)
    assert one.transitions == pytest.approx(transitions, abs=0.03)
    assert one.means == pytest.approx(means, abs=0.01)
    assert np.sqrt(one.variances) == pytest.approx(deviations, abs=0.01)


def test_classes_that_differ_by_the_order_of_their_rows_alone_are_told_apart_and_by_no_bag_of_rows():
    generator = np.random.default_rng(5)
    steps = np.linspace(0, 1, 6)[:, None] + generator.normal(0, 0.1, (80, 6, 3))
    train, test = steps[:40], steps[40:]
    both = np.concatenate([test, test[:, ::-1]])
    truth = np.repeat([0, 1], 40)
    chains = [fit(rows, 1e-2) for rows in (train, train[:, ::-1])]
    scores = np.stack([log_likelihood(one, both) for one in chains], axis=1)
    assert (scores.argmax(axis=1) == truth).all()
    bags = [GaussianMixture(4, random_state=0).fit(rows.reshape(-1, 3)) for rows in (train, train[:, ::-1])]
    scores = np.stack([one.score_samples(both.reshape(-1, 3)).reshape(80, 6).sum(axis=1) for one in bags], axis=1)
    assert (scores.round(6).argmax(axis=1) == truth).mean() == 0.5  # an image and its reverse have one answer


def test_a_state_never_goes_back_up_the_image_nor_skips_a_slice(tmp_path):
    one = fit(digits(tmp_path), 0.1)
    height = np.repeat(np.arange(MOST_SLICES), VARIANTS)
    reach = height - height[:, None]
    assert one.transitions.shape == reach.shape
    assert not one.transitions[(reach < 0) | (reach > 1)].any()
    assert one.transitions.sum(axis=1) == pytest.approx(1.0)
    assert one.start[:VARIANTS].sum() == pytest.approx(1.0)


def test_images_with_more_rows_than_slices_share_states_and_fewer_rows_need_fewer():
    generator = np.random.default_rng(6)
    for height, slices in ((3, 3), (20, MOST_SLICES)):
        assert len(fit(generator.random((5, height, 4)), 1e-2).start) == slices * VARIANTS


@pytest.mark.parametrize("floor", [1e-4, 1e-1])
@pytest.mark.parametrize("values", [np.zeros((2, 8, 8)), np.full((10, 8, 8), 1.0), np.tile([0.0, 1.0, 1.0, 0.0], (3, 5, 1))])
def test_pixels_that_never_change_do_no_harm(values, floor):
    one = fit(values, floor)
    assert all(np.isfinite(getattr(one, name)).all() for name in ("start", "transitions", "means", "variances"))
    elsewhere = log_likelihood(one, 1 - values)  # thousands of nats away
    assert np.isfinite(elsewhere).all()
    assert (log_likelihood(one, values) > elsewhere).all()


def test_a_fit_is_the_same_each_time(tmp_path):
    rows = digits(tmp_path)
    first, second = fit(rows, 1e-2), fit(rows.copy(), 1e-2)
    for name in ("start", "transitions", "means", "variances"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_a_row_holds_the_pixels_of_all_channels():
    images = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert rows_of(images).shape == (2, 4, 15)
    assert np.array_equal(rows_of(images)[1, 2], images[1, :, 2].flatten())
