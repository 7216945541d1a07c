"""Which models may be compared, how they are named, and how their budgets are matched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import DataError
from stages.common.images.grid import load_grid
from stages.image.compare.models import load_contestants, matched, usual_budget
from tests.image.comparisons import TFLOP, contestant, model_artifact
from tests.image.digits import toy_artifact

SHARES = ("1/8", "1/4", "1/2", "1", "raw")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy_artifact(tmp_path_factory.mktemp("images"))


@pytest.fixture
def make(tmp_path, images):
    def model(name, *, num=20, sets=SHARES, images=images, **options):
        samples = {one: torch.zeros(num, 1, 4, 4, dtype=torch.uint8) for one in sets}
        return model_artifact(tmp_path / name, images, samples, **options)

    return model


def labels_of(images, models):
    return [one.label for one in load_contestants(images, images, models)]


@pytest.mark.slow
def test_trainings_that_differ_only_by_their_seed_are_one_model(images, make):
    models = [make(f"{family}{seed}", family=family, seed=seed) for seed in (2, 1) for family in ("gan", "vae")]
    found = load_contestants(images, images, models)
    assert [(one.label, list(one.runs)) for one in found] == [("gan", [1, 2]), ("vae", [1, 2])]


def test_variants_of_a_family_are_named_by_what_differs_the_most_telling_setting_first(images, make):
    flows = [
        make(name, family="flow", architecture=name, learning_rate=rate)
        for name, rate in (("coupling", 0.1), ("autoregressive", 0.2))
    ]
    assert labels_of(images, flows) == ["flow, coupling", "flow, autoregressive"]
    gans = [make(f"g{rate}", family="gan", learning_rate=rate, num_components=n) for rate, n in ((0.1, 1), (0.2, 1), (0.1, 3))]
    assert labels_of(images, gans) == [
        "gan, num_components=1, learning_rate=0.1",
        "gan, num_components=1, learning_rate=0.2",
        "gan, num_components=3, learning_rate=0.1",
    ]


def test_other_ways_to_sample_get_a_row_of_their_own_but_shares_of_the_budget_do_not(images, make):
    models = [make("v", family="vae", sets=(*SHARES, "mean")), make("g", family="gan")]
    found = load_contestants(images, images, models)
    assert [(one.label, one.is_model, one.kind) for one in found] == [
        ("vae", True, "lower bound"),
        ("vae (mean)", False, None),
        ("gan", True, "lower bound"),
    ]


def test_classic_densities_come_last_and_may_lack_the_shares(images, make):
    models = [make("c", family="gmm-10", sets=("1",), facts={"training_flops": 0}), make("g", family="gan")]
    assert labels_of(images, models) == ["gan", "gmm-10"]


def test_names_from_elsewhere_keep_only_what_no_format_takes_for_markup(images, make):
    models = [make("a", family="=<script>\u6d41"), make("b", family="gan|[x](y)")]
    assert labels_of(images, models) == ["_script__", "gan__x_(y)"]
    with pytest.raises(DataError, match="two models would both be called 'a_b'"):
        labels_of(images, [make("c", family="a<b"), make("d", family="a>b")])


def test_models_of_other_images_are_refused_by_name(tmp_path, images, make):
    other = toy_artifact(tmp_path / "other", num=32)
    with pytest.raises(DataError, match=r"toy \(stages\.image\.toy\) was made from other images"):
        labels_of(images, [make("a", family="vae"), make("foreign", family="gan", images=other)])
    with pytest.raises(DataError, match="other images"):
        load_contestants(images, other, [make("b", family="vae"), make("c", family="gan")])


def test_one_model_is_no_comparison_however_many_seeds(images, make):
    with pytest.raises(DataError, match=r"holds 1 model \(2 trainings\); a comparison needs two or more"):
        labels_of(images, [make("a", seed=1), make("b", seed=2)])


def test_different_numbers_of_samples_are_refused_with_each_number(images, make):
    with pytest.raises(DataError, match=r"num_samples differs \(vae, seed 1337: 20; gan, seed 1337: 30\)"):
        labels_of(images, [make("a", family="vae"), make("b", family="gan", num=30)])


def test_where_train_is_smaller_than_the_sets_of_samples_their_first_images_are_judged(images, make):
    found = load_contestants(images, images, [make("a", family="vae", num=100), make("b", family="gan", num=70)])
    assert {len(samples) for one in found for samples in one.samples().values()} == {load_grid(images).sizes["train"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_likelihood_that_is_not_finite_has_no_mean_and_is_refused_by_name(images, make, value):
    models = [make("v", family="vae"), make("g", family="gan")]
    path = models[0].path / "likelihood.safetensors"
    values = load_file(path)
    values["test"][3] = value
    save_file(values, path)
    with pytest.raises(DataError, match=r"the likelihood of 1 of 16 test images is not finite"):
        labels_of(images, models)


def test_a_training_that_is_named_twice_is_refused(images, make):
    one = make("a", family="vae")
    with pytest.raises(DataError, match="twice"):
        labels_of(images, [one, one, make("b", family="gan")])


def test_budgets_match_up_to_the_tolerance_and_classic_densities_always_do():
    whole, near, far = (contestant(str(share), "x", flops=share * TFLOP) for share in (1.0, 0.951, 0.949))
    classic = contestant("gmm", "gmm", flops=0)
    assert matched(whole, near, 0.05)
    assert not matched(whole, far, 0.05)
    assert matched(far, classic, 0.05)
    assert usual_budget([whole, near, far, classic]) == 0.951 * TFLOP
    assert np.isnan(usual_budget([classic]))
