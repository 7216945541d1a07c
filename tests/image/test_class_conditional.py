"""One density for each class: it is a density, it learns from the labels it was given, and nothing changes without it."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from pipeline.errors import DataError, RecipeError
from stages.common.images.class_scores import class_bits, load_scores, mixture_likelihood, pooled
from stages.common.images.class_stage import estimator_noise
from stages.common.images.grid import Grid, Split, load_split
from stages.common.images.image_sets import HALVES, QUARTERS, TEST, VALIDATION, image_sets
from stages.common.images.labels import label_subset
from stages.common.images.noise import seeded_generator, whole_batch
from stages.common.images.ode import heun
from stages.image.flow.config import Config as FlowConfig
from stages.image.flow.model import Flow
from stages.image.flow.pipeline import FlowPipeline
from stages.image.flow_matching.config import Config as MatchingConfig
from stages.image.flow_matching.model import FlowMatching
from stages.image.gan.config import Config as GanConfig
from stages.image.vae.config import Config as VaeConfig
from stages.image.vae.model import VAE
from tests.harness import run_stage
from tests.image.digits import toy_artifact

TINY = Grid(name="toy", license="cc0-1.0", levels=3, channels=1, height=2, width=2, classes=("a", "b"), sizes={}, sha256={})
REPEATS = 100
EVERY_IMAGE = torch.tensor(list(itertools.product((0, 1, 2), repeat=4)), dtype=torch.uint8).view(81, 1, 2, 2)
"""Three levels: with two, a box of the grid has volume 1 and a forgotten scale goes unseen."""


def vae(**values):
    sizes = {"hidden_size": 4, "num_levels": 1, "latent_channels": 2}
    return made(VAE, VaeConfig, sizes | values)


def flow(**values):
    return made(Flow, FlowConfig, {"hidden_size": 8, "num_transforms": 2, "dropout": 0.0} | values)


def matching(**values):
    return made(FlowMatching, MatchingConfig, {"block_out_channels": [4], "num_class_steps": 4} | values)


def made(family, config, values):
    """Give every weight another value: a fresh flow is uniform, and a uniform density proves little."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = family(TINY, config.parse({"class_conditional": True} | values, where="a family"))
    generator = seeded_generator(5)
    with torch.no_grad():
        for network in model.averaged().values():
            for name, parameter in network.named_parameters():
                scale = 1.0 if "class" in name else 0.12
                parameter += scale * torch.randn(parameter.shape, generator=generator)
    return model


def chances_of(family):
    """P(x | c) of every image, (81, K): the mean over many draws for each, made as many images at once."""
    bits, _ = class_bits(family, EVERY_IMAGE.repeat_interleave(REPEATS, dim=0), 1)
    return (2**-bits).unflatten(0, (len(EVERY_IMAGE), REPEATS)).mean(1)


FAMILIES = {
    "vae": vae,
    "coupling": flow,
    "autoregressive": lambda **values: flow(architecture="autoregressive", patch_size=1, **values),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_probabilities_of_all_images_sum_to_one_for_every_class(family):
    chances = chances_of(FAMILIES[family]())
    assert chances.sum(0).tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    assert not torch.allclose(chances[:, 0], chances[:, 1], atol=0.005)


@pytest.mark.slow
def test_the_densities_of_flow_matching_sum_to_what_its_field_carries_onto_the_grid():
    """An untrained field leaves noise outside of [-1, 1), where no image lies."""
    model = matching(num_class_steps=16, num_class_draws=20)
    for label in (0, 1):
        draws = model.log_probs_given(EVERY_IMAGE, label, seeded_generator(2))
        noise = model.noise(4000, seeded_generator(4))
        values = heun(model.field_given(torch.full((4000,), label)), noise, num_steps=16)
        inside = (values.abs() <= 1).flatten(1).all(1).float().mean()
        assert float(draws.exp().mean(0).sum()) == pytest.approx(float(inside), rel=0.1)


def test_a_flow_matching_model_has_a_density_for_each_class():
    bits, _ = class_bits(matching(), EVERY_IMAGE, 1)
    assert torch.isfinite(bits).all()
    assert not torch.allclose(bits[:, 0], bits[:, 1], atol=0.01)


@pytest.mark.parametrize("family", [vae, flow, matching])
def test_classes_that_mean_the_same_get_the_same_bits_because_they_share_their_draws(family):
    model = family()
    with torch.no_grad():
        for network in model.averaged().values():
            for name, parameter in network.named_parameters():
                if "class" in name:
                    parameter.zero_()
        if isinstance(model, VAE):
            model.network.encoder.from_image.weight[:, 1:] = 0
            model.network.decoder.unflatten[0].weight[:, 2:] = 0
    bits, halves = class_bits(model, EVERY_IMAGE, 1)
    assert torch.allclose(bits[:, 0], bits[:, 1], atol=1e-5)
    assert not torch.equal(halves[0], halves[1])


def test_the_noise_of_the_log_odds_falls_with_the_number_of_draws():
    noise = {}
    for draws in (2, 64):
        _, halves = class_bits(flow(num_class_draws=draws), EVERY_IMAGE, 1)
        noise[draws], _ = estimator_noise(halves.numpy())
    assert noise[64] < noise[2] / 3


def test_the_mean_of_two_halves_is_what_is_reported():
    family = flow(num_class_draws=4)
    bits, halves = class_bits(family, EVERY_IMAGE, 1)
    assert torch.allclose(bits, -pooled(family, -halves * math.log(2)) / math.log(2))


def test_the_bits_of_an_image_whose_class_nobody_tells_are_those_of_the_mixture():
    found = mixture_likelihood(flow(), EVERY_IMAGE.repeat_interleave(REPEATS, dim=0), seeded_generator(3))
    assert float((2 ** (-found.bits * 4)).sum()) / REPEATS == pytest.approx(1.0, abs=0.05)
    assert "equally likely" in found.detail


def test_samples_follow_the_class():
    family = vae()
    labels = torch.tensor([0, 1]).repeat_interleave(3000)
    images = family.sample_given(labels, seeded_generator(1)).flatten(1).long()
    codes = images @ torch.tensor([27, 9, 3, 1])
    chances = chances_of(family)
    for label in (0, 1):
        shares = torch.bincount(codes[labels == label], minlength=81) / 3000
        assert torch.allclose(shares.double(), chances[:, label], atol=0.03)


def split(counts):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    return Split(torch.arange(len(labels)).to(torch.uint8).view(-1, 1, 1, 1), labels)


def test_a_smaller_choice_of_labels_is_part_of_a_larger_one():
    train = split([9, 7])
    chosen = {n: set(label_subset(train, ("a", "b"), num_labels=n, seed=4).images.flatten().tolist()) for n in (1, 3, 7)}
    assert chosen[1] < chosen[3] < chosen[7]
    assert [len(found) for found in chosen.values()] == [2, 6, 14]


def test_another_seed_chooses_other_labels():
    train = split([50, 50])
    first, second = (label_subset(train, ("a", "b"), num_labels=10, seed=seed).images for seed in (1, 2))
    assert not torch.equal(first, second)


def test_images_without_a_label_are_left_out():
    train = Split(torch.zeros(4, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, -1, 1, -1]))
    assert label_subset(train, ("a", "b"), num_labels=None, seed=1).labels.tolist() == [0, 1]


def test_more_labels_than_a_class_has_are_refused():
    with pytest.raises(DataError, match="num_labels is 8, but class 'b' has 7"):
        label_subset(split([9, 7]), ("a", "b"), num_labels=8, seed=1)
    with pytest.raises(DataError, match="class 'b' has no labelled train image; take more images"):
        label_subset(split([9, 0]), ("a", "b"), num_labels=None, seed=1)


def test_images_without_classes_are_refused():
    with pytest.raises(DataError, match="0 classes"):
        label_subset(Split(torch.zeros(4, 1, 1, 1, dtype=torch.uint8), torch.full((4,), -1)), (), num_labels=None, seed=1)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (VaeConfig, {"num_labels": 3}, "set class_conditional: true"),
        (VaeConfig, {"class_conditional": True, "architecture": "autoencoder_kl"}, "class_conditional changes nothing"),
        (FlowConfig, {"num_class_draws": 3}, "num_class_draws"),
        (FlowConfig, {"num_class_draws": 4}, "num_class_draws changes nothing with class_conditional: false"),
        (VaeConfig, {"class_sets": "all"}, "class_sets changes nothing with class_conditional: false"),
        (VaeConfig, {"class_conditional": True, "num_importance_samples": 8}, "num_importance_samples changes nothing"),
        (FlowConfig, {"class_conditional": True, "num_dequantisation_draws": 8}, "num_dequantisation_draws changes nothing"),
        (FlowConfig, {"num_heads": 2}, "num_heads changes nothing with architecture: coupling"),
        (MatchingConfig, {"num_class_steps": 4}, "num_class_steps changes nothing with class_conditional: false"),
        (MatchingConfig, {"class_conditional": True, "num_probes": 1}, "num_probes changes nothing with class_conditional: true"),
        (GanConfig, {"penalty": "none", "gamma": 1}, "gamma changes nothing with penalty: none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, values, message):
    with pytest.raises(RecipeError, match=message):
        config.parse(values, where="a stage")


@pytest.mark.parametrize(
    ("family", "config"), [(VAE, VaeConfig), (Flow, FlowConfig), (FlowMatching, MatchingConfig)], ids=["vae", "flow", "matching"]
)
def test_a_model_without_classes_has_no_weights_for_them_and_does_not_look_at_labels(family, config):
    grid = Grid(**{**vars(TINY), "height": 4, "width": 4})
    sizes = {"block_out_channels": [4]} if config is MatchingConfig else {"hidden_size": 8}
    torch.manual_seed(0)
    model = family(grid, config.parse(sizes, where="family"))
    torch.manual_seed(0)
    told = family(grid, config.parse(sizes | {"class_conditional": True}, where="family"))
    weights = [sum(p.numel() for n in one.averaged().values() for p in n.parameters()) for one in (model, told)]
    assert weights[0] < weights[1]
    (player,) = model.players().values()
    images = torch.randint(2, (6, 1, 4, 4), generator=seeded_generator(1)).to(torch.uint8)
    losses = [player(images, labels, whole_batch(6, 1))["loss"] for labels in (torch.full((6,), -1), torch.arange(6) % 2)]
    assert torch.equal(*losses)


def test_the_pipeline_of_a_class_conditional_flow_needs_labels_that_it_knows():
    pipeline = FlowPipeline(flow=flow().network)
    generator = seeded_generator(1)
    assert pipeline(class_labels=[0, 1, 1], generator=generator, output_type="pt").images.shape == (3, 1, 2, 2)

    def drawn(**given):
        return pipeline(generator=seeded_generator(4), output_type="pt", **given).images

    assert torch.equal(drawn(class_labels=torch.tensor([1, 1])), drawn(class_labels=1, num_images=2))
    with pytest.raises(DataError, match="class_labels has 2 labels for 3 images"):
        drawn(class_labels=[0, 1], batch_size=3)
    for wrong in (None, [0, 2]):
        with pytest.raises(DataError, match="class_labels"):
            pipeline(class_labels=wrong, generator=generator)


def test_the_sets_depend_on_the_images_alone(tmp_path):
    images, other = toy_artifact(tmp_path / "images"), toy_artifact(tmp_path / "other", height=8, width=8, levels=9)
    sets = {one.name: one for one in image_sets(images, [], most=20, which="all")}
    assert [one.sha256 for one in sets.values()] == [one.sha256 for one in image_sets(images, [], most=20, which="all")]
    assert {one.role for one in sets.values()} == {"test", "validation", "corrupted", "foreign"}
    assert all(one.images.max() < 4 for one in sets.values())
    assert next(iter(sets)) == TEST
    with pytest.raises(DataError, match="'bars'"):
        image_sets(images, [other, other], most=20, which="all")
    assert [one.name for one in image_sets(images, [], most=20, which="test")] == [TEST, VALIDATION]
    theirs = image_sets(images, [other], most=20, which="all")[-1]
    assert (theirs.role, tuple(theirs.images.shape)) == ("foreign", (20, 1, 4, 4))
    assert theirs.images.max() < 4


def test_trials_do_not_see_test_images(tmp_path):
    images = toy_artifact(tmp_path / "images")
    (only,) = image_sets(images, [], most=20, which="validation")
    assert (only.name, only.role) == (VALIDATION, "validation")
    assert torch.equal(only.images, load_split(images, "validation").images[:20])


def test_images_made_foreign_are_made_of_test_images_and_none_stays_what_it_was(tmp_path):
    images = toy_artifact(tmp_path / "images")
    sets = {one.name: one for one in image_sets(images, [], most=20, which="all")}
    test, quarters, halves = (sets[name].images for name in (TEST, QUARTERS, HALVES))
    assert torch.equal(quarters[:, :, :2, :2], test[:, :, 2:, 2:])
    assert not (quarters == test).flatten(1).all(1).any()
    tops = {tuple(image.flatten().tolist()) for image in test[:, :, :2]}
    assert all(tuple(image.flatten().tolist()) in tops for image in halves[:, :, :2])
    assert set(sets[QUARTERS].labels.tolist()) == {-1}


COMMON = {"class_conditional": True, "num_labels": 8, "num_samples": 6, "num_likelihood_images": 6, "num_class_images": 12}
STAGES = {
    "vae": {"hidden_size": 8, "num_levels": 1, "latent_channels": 2, "budget_tflop": 0.001},
    "flow": {"hidden_size": 8, "budget_tflop": 0.001},
    "flow_matching": {"block_out_channels": [8, 8], "budget_tflop": 0.002, "num_class_steps": 2, "num_sample_steps": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_writes_the_log_probability_of_every_named_image_given_every_class(stage, tmp_path):
    images = toy_artifact(tmp_path / "images")
    values = COMMON | STAGES[stage] | {"class_sets": "all", "batch_size": 32}  # more than the 16 labelled images
    made = run_stage(f"stages.image.{stage}", tmp_path / stage, values, {"images": images})
    facts, scores = load_scores(made.path)
    assert facts["train_counts"] == [8, 8]
    assert "Trained from random weights on 16 images" in (made.path / "card.md").read_text()
    assert scores[TEST].values.shape == (12, 2)
    assert scores[TEST].halves.shape == (2, 12, 2)
    assert {found.role for found in scores.values()} == {"test", "validation", "corrupted", "foreign"}
    assert facts["latency_ms_for_one_image"] > 0
    assert (made.path / "figures" / "classes.png").exists()
    assert "equally likely" in json.loads((made.path / "family.json").read_text())["likelihood"]["detail"]


@pytest.mark.slow
def test_a_classifier_learns_from_the_same_labels(tmp_path):
    images = toy_artifact(tmp_path / "images", num=200)
    values = {"num_labels": 40, "budget_tflop": 0.002, "batch_size": 32, "first_width": 8, "num_features": 16}
    made = run_stage("stages.image.discriminative", tmp_path / "cnn", values, {"images": images})
    assert made.metric("accuracy", "test") > 0.8
    facts, scores = load_scores(made.path)
    assert facts["train_counts"] == [40, 40]
    assert scores[TEST].halves is None
    assert torch.from_numpy(scores[TEST].values).exp().sum(1).allclose(torch.ones(100, dtype=torch.float64))
