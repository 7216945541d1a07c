"""Bayes' rule, learning curves, detection of foreign images, classical pairs, and what the stage makes of them."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB

from pipeline.contract import StageConfig
from pipeline.errors import DataError
from stages.common.images.class_scores import LIKELIHOOD, POSTERIOR, save_scores
from stages.common.images.grid import load_grid, load_split
from stages.common.images.image_sets import image_sets
from stages.image.generative_classifier.bayes import bayes, log_loss, temperature, tempered
from stages.image.generative_classifier.classical import NAIVE_BAYES, SHARED, SVM, classical_cells
from stages.image.generative_classifier.curves import crossover, fit, learning_curve, resampled
from stages.image.generative_classifier.detection import resampled_auroc, wins
from tests.harness import commit, make_context, run_stage
from tests.image.digits import toy_artifact

LABELS = np.array([1, 3, 10, 30, 100])


def test_bayes_rule_with_known_densities_is_scikit_learns_naive_bayes():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    values = generator.normal(labels[:, None] * [1.0, -0.5], [1.0, 2.0], size=(100, 2))
    model = GaussianNB().fit(values, labels)
    squares = (values[:, None] - model.theta_) ** 2 / model.var_
    likelihood = -0.5 * (squares + np.log(2 * np.pi * model.var_)).sum(axis=2)
    posterior, evidence = bayes(likelihood, np.array([0.5, 0.3, 0.2]))
    assert np.exp(posterior) == pytest.approx(model.predict_proba(values))
    assert evidence == pytest.approx(np.log((np.exp(likelihood) * [0.5, 0.3, 0.2]).sum(axis=1)))


def test_a_class_that_is_rare_needs_more_evidence():
    posterior, _ = bayes(np.zeros((1, 2)), np.array([0.9, 0.1]))
    assert np.exp(posterior[0]) == pytest.approx([0.9, 0.1])


def overconfident(num_images, factor):
    """Labels drawn from probabilities, and log-probabilities that claim `factor` times the log odds."""
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(num_images, 3)) * 1.5
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) < generator.random((num_images, 1))).sum(axis=1)
    claimed, _ = bayes(factor * logits, np.full(3, 1 / 3))
    return claimed, labels


def test_the_temperature_is_the_factor_by_which_confidence_was_exaggerated():
    assert temperature(*overconfident(20_000, 40.0)) == pytest.approx(40.0, rel=0.1)


def test_images_that_were_all_named_right_make_no_classifier_certain():
    certain = np.array([[0.0, -2.0]] * 20)
    assert temperature(certain, np.zeros(20, dtype=int)) > 0.3


def test_no_image_helps_to_find_its_own_temperature():
    claimed, labels = overconfident(400, 5.0)
    after, _ = tempered(claimed, labels)
    turned = labels.copy()
    turned[::2] = (turned[::2] + 1) % 3  # the answers to the even images decide the temperature of the odd ones alone
    other, _ = tempered(claimed, turned)
    assert np.array_equal(after[::2], other[::2])
    assert not np.array_equal(after[1::2], other[1::2])
    assert log_loss(after, labels) < log_loss(claimed, labels)


def test_the_fit_finds_the_curve_that_made_the_errors():
    errors = np.stack([0.05 + 0.6 * LABELS**-0.5, 0.0 + 0.8 * LABELS**-1.0, np.full(5, 0.2)])
    (first, second, flat) = fit(LABELS, errors)
    assert first == pytest.approx([0.05, 0.6, 0.5], abs=0.02)
    assert second == pytest.approx([0.0, 0.8, 1.0], abs=0.03)
    assert flat[:2] == pytest.approx([0.2, 0.0], abs=1e-9)


def test_errors_that_rise_with_labels_are_fitted_by_a_constant():
    (rising,) = fit(LABELS, np.array([[0.1, 0.2, 0.3, 0.4, 0.5]]))
    assert rising[:2] == pytest.approx([0.3, 0.0])


def drawn(rates, seed, num_images=400):
    """Errors of 4 seeds, (L, S, N), with the given rates."""
    return (np.random.default_rng(seed).random((len(rates), 4, num_images)) < np.asarray(rates)[:, None, None]).astype(float)


def test_a_crossover_is_found_where_the_discriminative_curve_overtakes():
    generative, discriminative = 0.2 + 0.1 * LABELS**-1.0, 0.05 + 0.6 * LABELS**-0.7
    found = crossover(LABELS, drawn(generative, 1), drawn(discriminative, 2), seed=1, num_resamples=200)
    exact = np.geomspace(1, 100, 10_000)
    where = exact[np.argmax(0.2 + 0.1 / exact >= 0.05 + 0.6 * exact**-0.7)]
    assert found.interval[0] <= where <= found.interval[1]
    assert found.interval[1] < 20


@pytest.mark.parametrize("gap", [-0.1, 0.1])
def test_curves_that_do_not_cross_have_no_crossover(gap):
    rates = 0.2 + 0.3 * LABELS**-0.7
    found = crossover(LABELS, drawn(rates + gap, 1), drawn(rates, 2), seed=1, num_resamples=200)
    assert found.place is None
    assert found.share < 0.05


def test_the_interval_of_the_limit_covers_it():
    found = learning_curve(LABELS, drawn(0.1 + 0.5 * LABELS**-0.8, 3), seed=1, num_resamples=300)
    assert found.a_interval[0] <= 0.1 <= found.a_interval[1]


def test_two_models_with_the_same_errors_differ_in_no_resample():
    errors = drawn([0.3, 0.2, 0.1], 1)
    means = [resampled(one, seed=5, num_resamples=50) for one in (errors, errors.copy())]
    assert np.array_equal(*means)
    assert means[0].std(axis=0).min() > 0


def test_the_area_is_scikit_learns_and_ties_count_half():
    generator = np.random.default_rng(0)
    test, foreign = generator.integers(0, 6, 40), generator.integers(0, 4, 30)
    truth = np.repeat([1, 0], [40, 30])
    value, resamples = resampled_auroc(wins(test, foreign)[None], seed=1, num_resamples=500)
    assert value == pytest.approx(roc_auc_score(truth, np.concatenate([test, foreign])))
    low, high = np.quantile(resamples, [0.025, 0.975])
    assert low < value < high


def test_scores_that_always_tell_have_an_area_of_one_and_no_spread():
    value, resamples = resampled_auroc(np.ones((3, 7, 11)), seed=1, num_resamples=50)
    assert value == 1
    assert set(resamples) == {1.0}


def test_a_classical_cell_is_fitted_to_the_chosen_labels_and_left_out_where_it_cannot_be(tmp_path):
    images = toy_artifact(tmp_path / "images", num=120)
    train, grid = load_split(images, "train"), load_grid(images)
    cells = classical_cells(train, grid, image_sets(images, [], most=60, with_all=False), [(1, 1), (40, 1)], num_folds=2)
    assert {cell.model for cell in cells if cell.num_labels == 40} >= {NAIVE_BAYES, SHARED}
    assert SHARED not in {cell.model for cell in cells if cell.num_labels == 1}
    errors = {(cell.model, cell.num_labels): cell.sets["test"].wrong.mean() for cell in cells}
    assert errors[SVM, 40] < min(0.3, errors[SVM, 1])
    for cell in cells:
        assert (cell.sets["test"].log_evidence is not None) == (cell.side == "generative")
        assert np.exp(cell.sets["test"].log_posterior).sum(axis=1) == pytest.approx(1.0)


class TrainedConfig(StageConfig):
    """Stands for the config of a stage that trained a classifier."""

    produces: ClassVar[str] = "image_model"
    seed: int
    num_labels: int
    width: int = 8


def trained(root, images, name, *, num_labels, seed, sharpness, flops=1e9, most=32, width=8):
    """Return an artifact of a classifier whose evidence for the true class grows with `sharpness`."""
    sets = image_sets(images, [], most=most, with_all=True)
    generator = np.random.default_rng([seed, num_labels])
    scores, halves = {}, {}
    for one in sets:
        size = (len(one.labels), 2)
        evidence = generator.normal(size=size) + sharpness * (one.labels.numpy()[:, None] == np.arange(2))
        evidence[one.labels.numpy() < 0] -= 5 * sharpness  # foreign images are improbable
        if name == "cnn":
            scores[one.name] = evidence - np.logaddexp.reduce(evidence, axis=1, keepdims=True)
        else:
            scores[one.name] = 10 - evidence
            halves[one.name] = np.stack([scores[one.name] + generator.normal(size=size) * 0.1 for _ in range(2)])
    context = make_context(root, {"images": images})
    facts = {"name": name, "train_counts": [num_labels] * 2, "detail": "toy", "flops_for_one_image": 1e6, "training_flops": flops}
    kind = {"kind": "discriminative" if name == "cnn" else "lower bound"}
    save_scores(context.directory, POSTERIOR if name == "cnn" else LIKELIHOOD, sets, scores, halves, facts | kind)
    return commit(f"stages.image.{name}", TrainedConfig(seed=seed, num_labels=num_labels, width=width), context)


def classifiers(root, images, **changes):
    """Return a VAE that is good from one label on, and a network that is better with many."""
    models, rivals = [], []
    for seed in (1, 2, 3):
        for labels, sharpness in ((1, 0.2), (4, 1.5), (16, 6.0)):
            at = {"num_labels": labels, "seed": seed}
            models.append(trained(root / f"vae-{labels}-{seed}", images, "vae", sharpness=1.5, **at, **changes))
            rivals.append(trained(root / f"cnn-{labels}-{seed}", images, "cnn", sharpness=sharpness, **at))
    return {"images": images, "models": models, "rivals": rivals}


@pytest.mark.slow
def test_the_stage_tells_who_is_ahead_with_few_labels_and_with_many(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    made = run_stage(
        "stages.image.generative_classifier", tmp_path / "out", {"num_resamples": 200}, classifiers(tmp_path, images)
    )
    found = json.loads((made.path / "classifiers.json").read_text())
    (pair,) = [one for one in found["pairs"] if one["discriminative"] == "cnn"]
    assert pair["gaps"]["1"]["verdict"] == "better"
    assert pair["gaps"]["16"]["verdict"] == "worse"
    assert 1 < pair["crossover"]["place"] < 16
    outcomes = {claim["sentence"]: claim["outcome"] for claim in found["claims"]}
    assert outcomes["With few labels a generative model is ahead (deep models at equal training FLOPs)"] == "holds"
    assert outcomes["With many labels a discriminative model is ahead (deep models at equal training FLOPs)"] == "holds"
    areas = [one["mean"] for one in found["detections"] if (one["model"], one["score"]) == ("vae", "log p(x)")]
    assert min(areas) > 0.95
    tables = [
        block["title"] for block in json.loads((made.path / "section.json").read_text())["blocks"] if block["kind"] == "table"
    ]
    assert {"Errors by labels", "Who notices foreign images?", "Can the confidence be believed?"} <= set(tables)
    _check_rows(made, found)


def _check_rows(made, found):
    """Every row names its trainings and what each gave alone; what was fitted in the stage is nobody's artifact."""
    rows = [row for row in made.record.metrics if row["name"] == "error"]
    assert [row["num_labels"] for row in rows if row["label"] == "vae"] == [1, 4, 16]
    assert [row["num_labels"] for row in rows if row["listed"] and row["label"] in ("vae", "cnn")] == [16, 16]
    trained = {entry.fingerprint for role in ("models", "rivals") for entry in made.record.inputs[role]}
    assert {one["artifact"] for row in rows for one in row.get("of", [])} == trained
    for row in rows:
        if row["label"] not in ("vae", "cnn"):
            assert "of" not in row
            continue
        errors = found["error_by_labels_and_seed"][row["label"]][str(row["num_labels"])]
        assert [one["value"] for one in row["of"]] == errors
        assert [one["seed"] for one in row["of"]] == [1, 2, 3]
        assert row["value"] == pytest.approx(sum(errors) / 3)
        for one in (row, *row["of"]):
            assert 0 <= one["interval"][0] <= one["value"] <= one["interval"][1] <= 1


def refuse(tmp_path, inputs, message):
    with pytest.raises(DataError, match=message):
        run_stage("stages.image.generative_classifier", tmp_path / "refused", {}, inputs)


def test_unequal_budgets_are_refused(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    refuse(tmp_path, classifiers(tmp_path, images, flops=2e9), "set one budget_tflop")


def test_answers_about_different_images_are_refused(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    refuse(tmp_path, classifiers(tmp_path, images, most=20), "set one num_class_images")


def test_a_model_of_other_images_is_refused(tmp_path):
    images, other = (toy_artifact(tmp_path / name, num=num) for name, num in (("images", 80), ("other", 90)))
    refuse(tmp_path, classifiers(tmp_path, images) | {"images": other}, "learned from other images")


def test_two_settings_under_one_name_are_refused(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    inputs = classifiers(tmp_path, images)
    inputs["models"].append(trained(tmp_path / "wide", images, "vae", num_labels=64, seed=1, sharpness=1, width=16))
    refuse(tmp_path, inputs, "differ in more than seed and num_labels")


def test_a_seed_that_is_missing_somewhere_is_refused(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    inputs = classifiers(tmp_path, images)
    inputs["rivals"].pop()
    refuse(tmp_path, inputs, "the same seeds everywhere")


def test_a_model_without_classes_is_refused(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    context = make_context(tmp_path / "plain", {"images": images})
    plain = commit("stages.image.vae", TrainedConfig(seed=1, num_labels=1), context)
    refuse(tmp_path, {"images": images, "models": [plain], "rivals": []}, "set class_conditional: true")
