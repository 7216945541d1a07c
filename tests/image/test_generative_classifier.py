"""Bayes' rule, learning curves, detection of foreign images, classical pairs, and what the stage makes of them."""

from __future__ import annotations

import json
import re
from typing import ClassVar

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB

from pipeline.contract import StageConfig
from pipeline.errors import DataError
from stages.common.images.calibration import wilson_interval
from stages.common.images.class_scores import LIKELIHOOD, POSTERIOR, save_scores
from stages.common.images.grid import load_grid, load_split
from stages.common.images.image_sets import image_sets
from stages.common.verdicts import t_interval
from stages.image.generative_classifier.bayes import bayes, losses, temperature
from stages.image.generative_classifier.cells import Cell, Judged
from stages.image.generative_classifier.classical import MARKOV, NAIVE_BAYES, SHARED, SVM, classical_cells
from stages.image.generative_classifier.confidence import by_confidence, calibration
from stages.image.generative_classifier.curves import crossover, fit, learning_curve, resampled
from stages.image.generative_classifier.detection import resampled_auroc, wins
from stages.image.generative_classifier.estimates import share
from stages.image.generative_classifier.study import Detection
from stages.image.generative_classifier.trials import judge
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


def judged(log_posterior, labels, role="test"):
    return Judged(log_posterior=log_posterior, log_evidence=None, labels=labels, role=role, sha256="toy")


def calibrated(test, validation):
    """Calibration of three seeds that all say the same."""
    return calibration([judged(*test)] * 3, [judged(*validation)] * 3, seed=1, num_resamples=200)


def test_the_temperature_is_found_on_validation_images_and_used_on_test_images():
    claimed, labels = overconfident(400, 5.0)
    found = calibrated((claimed[:200], labels[:200]), (claimed[200:], labels[200:]))
    assert found.temperatures == [temperature(claimed[200:], labels[200:])] * 3
    assert found.log_loss[1].mean < found.log_loss[0].mean
    assert found.error[1].high < found.error[0].low
    assert found.log_loss[0].mean == pytest.approx(float(losses(claimed[:200], labels[:200]).mean()))
    assert found.wasted.mean() == pytest.approx(found.log_loss[0].mean - found.log_loss[1].mean)


def test_the_temperature_does_not_look_at_the_answers_to_test_images():
    claimed, labels = overconfident(400, 5.0)
    first, other = (
        calibrated((claimed[:200], answers), (claimed[200:], labels[200:])) for answers in (labels[:200], 1 - labels[:200] % 2)
    )
    assert first.temperatures == other.temperatures
    assert first.log_loss[1].mean != other.log_loss[1].mean


def test_confidence_that_fits_has_an_interval_of_its_error_near_zero_and_inside_the_bounds():
    claimed, labels = overconfident(20_000, 1.0)
    fits, _ = calibrated((claimed, labels), (claimed, labels)).error
    assert 0 <= fits.low <= fits.mean <= fits.high < 0.02


def test_answers_by_confidence_are_groups_of_one_size_from_the_least_sure_to_the_surest():
    confidence = np.concatenate([np.full(40, 0.6), np.full(160, 0.999999)])
    answers = np.log(np.stack([confidence, 1 - confidence], axis=1))
    labels = np.concatenate([np.arange(40) % 2, np.zeros(160, dtype=int)])
    found = by_confidence([answers, answers], labels)
    assert found[:, 0] == pytest.approx([0.6, *[0.999999] * 4])
    assert found[:, 1] == pytest.approx([0.5, 1, 1, 1, 1])
    assert found[0, 2:] == pytest.approx(wilson_interval(20, 40))  # 40 images, though two trainings answered


def test_a_share_without_errors_is_not_called_certain_and_more_seeds_make_no_more_images():
    none = share(np.zeros((5, 50)))
    assert (none.mean, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(wilson_interval(0, 50)[1])
    assert share(np.ones((1, 50))).high == 1.0


def test_an_interval_covers_other_images_and_other_seeds():
    rates = [0.1, 0.2, 0.6]
    errors = np.stack([np.arange(1000) < 1000 * rate for rate in rates]).astype(float)
    found = share(errors)
    assert (found.low, found.high) == pytest.approx((max(t_interval(rates)[0], 0.0), t_interval(rates)[1]))
    alike = share(np.stack([errors[1]] * 3))
    assert (alike.low, alike.high) == pytest.approx(wilson_interval(200, 1000))


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
    won = wins(test, foreign)
    assert won.mean() == pytest.approx(roc_auc_score(truth, np.concatenate([test, foreign])))
    low, high = np.quantile(resampled_auroc(won[None], seed=1, num_resamples=500), [0.025, 0.975])
    assert low < won.mean() < high


def test_scores_that_always_tell_have_an_area_of_one_and_no_spread():
    assert set(resampled_auroc(np.ones((3, 7, 11)), seed=1, num_resamples=50)) == {1.0}


def test_the_interval_of_an_area_covers_the_seeds_and_a_difference_is_paired():
    generator = np.random.default_rng(2)
    areas = np.array([0.7, 0.9, 0.99])
    one = Detection(model="vae", score="log p(x)", foreign="toy", areas=areas, drawn=generator.normal(areas.mean(), 0.01, 500))
    assert one.value.low == pytest.approx(t_interval(areas.tolist())[0])
    assert one.value.high == 1.0
    other = Detection(model="cnn", score="log p(x)", foreign="toy", areas=areas - 0.1, drawn=one.drawn - 0.1)
    gap = one.minus(other)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_classical_cell_is_fitted_to_the_chosen_labels_and_left_out_where_it_cannot_be(tmp_path):
    images = toy_artifact(tmp_path / "images", num=120)
    train, grid = load_split(images, "train"), load_grid(images)
    cells = classical_cells(train, grid, image_sets(images, [], most=60, which="test"), [(1, 1), (40, 1)], num_folds=2)
    assert {cell.model for cell in cells if cell.num_labels == 40} >= {NAIVE_BAYES, SHARED, MARKOV}
    assert not {SHARED, MARKOV} & {cell.model for cell in cells if cell.num_labels == 1}
    errors = {(cell.model, cell.num_labels): cell.sets["test"].wrong.mean() for cell in cells}
    assert errors[SVM, 40] < min(0.3, errors[SVM, 1])
    assert errors[MARKOV, 40] < 0.3
    for cell in cells:
        assert (cell.sets["test"].log_evidence is not None) == (cell.side == "generative")
        assert np.exp(cell.sets["test"].log_posterior).sum(axis=1) == pytest.approx(1.0)


class TrainedConfig(StageConfig):
    """Stands for the config of a stage that trained a classifier."""

    produces: ClassVar[str] = "image_model"
    seed: int
    num_labels: int
    width: int = 8


def trained(root, images, name, *, num_labels, seed, sharpness, flops=1e9, most=32, width=8, which="all"):
    """Return an artifact of a classifier whose evidence for the true class grows with `sharpness`."""
    sets = image_sets(images, [], most=most, which=which)
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
    facts |= {"parameters": 100, "latency_ms_for_one_image": 0.5}
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
    assert found["costs"]["vae"]["answer_flops"] == 1e6
    blocks = json.loads((made.path / "section.json").read_text())["blocks"]
    tables = {block["title"]: block for block in blocks if block["kind"] == "table"}
    assert {"Errors by labels", "What an answer costs", "Who notices foreign images?", "Can the confidence be believed?"} <= set(
        tables
    )
    ends = [end for row in tables["Errors by labels"]["rows"] for cell in row for end in interval_ends(cell)]
    assert len(ends) > 20
    assert 0 <= min(ends) <= max(ends) <= 1
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


def interval_ends(cell):
    """The ends of an interval in a cell of a table."""
    return (
        [float(end) for end in re.findall(r"[^ \[\]]+", cell.partition("[")[2].replace("−", "-").replace(",", " "))]
        if isinstance(cell, str)
        else []
    )


def trials(root, images, seeds=(1,), **changes):
    """A good and a bad setting of each side, asked about validation images alone."""
    at = {"num_labels": 4, "which": "validation"} | changes
    inputs = {"images": images, "models": [], "rivals": []}
    for seed in seeds:
        for width, sharpness in ((8, 0.1), (16, 4.0)):
            models = [("models", "vae", sharpness), ("rivals", "cnn", 4.1 - sharpness)]
            for role, name, sharp in models:
                one = trained(root / f"{name}-{width}-{seed}", images, name, seed=seed, sharpness=sharp, width=width, **at)
                inputs[role].append(one)
    return inputs


def test_trials_of_both_sides_are_judged_by_one_rule_on_validation_images(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    made = run_stage("stages.image.generative_classifier", tmp_path / "out", {"split": "validation"}, trials(tmp_path, images))
    found = json.loads((made.path / "trials.json").read_text())["trials"]
    assert {one["model"]: one["settings"] for one in found if one["is_chosen"]} == {"vae": {"width": 16}, "cnn": {"width": 8}}
    assert len(found) == 4
    assert all(0 <= one["error"]["low"] <= one["error"]["mean"] <= one["error"]["high"] <= 1 for one in found)
    assert made.metric("error", "validation") < 0.1


def test_of_trials_with_as_many_errors_the_one_with_the_smaller_log_loss_is_chosen():
    labels = np.arange(40) % 2
    chances = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    cells = []
    for width, wrong in ((8, 0.01), (16, 0.4)):  # one error each: a sure one, and a hesitant one
        answers = chances.copy()
        answers[0] = [wrong, 1 - wrong] if labels[0] == 0 else [1 - wrong, wrong]
        sets = {"validation": judged(np.log(answers), labels, "validation")}
        cells.append(
            Cell(model="vae", side="generative", num_labels=4, seed=1, sets=sets, latency_ms=1.0, settings={"width": width})
        )
    assert [(one.settings["width"], one.is_chosen) for one in judge(cells)] == [(16, True), (8, False)]


def refuse(tmp_path, inputs, message, **values):
    with pytest.raises(DataError, match=message):
        run_stage("stages.image.generative_classifier", tmp_path / "refused", values, inputs)


def test_trials_with_fewer_seeds_than_others_are_refused(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    inputs = trials(tmp_path, images, seeds=(1, 2))
    inputs["models"].pop()
    refuse(tmp_path, inputs, "different num_labels or seeds", split="validation")


def test_models_that_were_asked_about_validation_images_alone_are_not_compared(tmp_path):
    images = toy_artifact(tmp_path / "images", num=80)
    refuse(tmp_path, trials(tmp_path, images), "was not asked about test images")


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
