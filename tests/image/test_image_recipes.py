"""The recipes of the image wing fit its stages, and keep the promise of one budget and one set of seeds for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.graph import build_graph
from pipeline.recipe import load_recipe

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FAMILIES = ("vae", "gan", "flow_coupling", "flow_autoregressive", "flow_matching", "diffusion")
MORE = {"images_gpu": ("vae_kl",), "stacked_digits": ("gan_unpenalised",)}
"""Recipe -> further networks of these families that it trains."""
SEEDS = {"quickstart_images": 1, "images": 3, "images_report": 5, "images_fashion": 1, "images_gpu": 1, "stacked_digits": 3}


@pytest.fixture(params=SEEDS)
def recipe(request):
    return request.param, build_graph(load_recipe(CONFIGS / f"{request.param}.yaml"))


def cells(nodes, stage):
    return [node.config for name, node in nodes.items() if name.partition("@")[0] == stage]


def test_all_families_have_one_budget_one_number_of_samples_and_the_same_seeds(recipe):
    name, nodes = recipe
    found = {family: cells(nodes, family) for family in (*FAMILIES, *MORE.get(name, ()))}
    assert {len(configs) for configs in found.values()} == {SEEDS[name]}
    assert len({config.budget_tflop for configs in found.values() for config in configs}) == 1
    assert len({config.num_samples for configs in (*found.values(), cells(nodes, "classic")) for config in configs}) == 1
    assert len({tuple(config.seed for config in configs) for configs in found.values()}) == 1


def test_the_comparison_takes_every_family_and_every_seed(recipe):
    recipe_name, nodes = recipe
    taken = nodes["compare"].needs["models"]
    wanted = [name for name in nodes if name.partition("@")[0] in (*FAMILIES, *MORE.get(recipe_name, ()), "classic")]
    assert sorted(taken) == sorted(wanted)


def test_the_weight_of_gradient_penalties_is_named_for_every_size_of_images(recipe):
    name, _ = recipe
    stages = load_recipe(CONFIGS / f"{name}.yaml").stages
    gans = [entry for entry in stages.values() if entry.stage == "stages.image.gan"]
    assert gans
    for entry in gans:
        assert "gamma" in {*entry.values, *entry.matrix} or entry.values["penalty"] == "none"


def test_the_report_gives_every_family_the_same_number_of_trials_at_a_quarter_of_the_budget():
    nodes = build_graph(load_recipe(CONFIGS / "images_report.yaml"))
    trials = {family: cells(nodes, f"trials_{family}") for family in FAMILIES}
    assert {len(configs) for configs in trials.values()} == {8}, "six or more, and as many for each"
    budgets = {config.budget_tflop for configs in trials.values() for config in configs}
    assert budgets == {cells(nodes, "vae")[0].budget_tflop / 4}
    assert {nodes[f"choice_{family}"].config.split for family in FAMILIES} == {"validation"}


OF_THE_RUN = {"seed", "budget_tflop", "num_samples", "num_likelihood_images", "num_probes"}
"""What a recipe chooses by its size; all else is a setting of the family."""


def settings_of(nodes, stage):
    """The different settings of a stage's cells, as a set of sorted pairs."""
    return {
        tuple(sorted((key, str(value)) for key, value in config.model_dump().items() if key not in OF_THE_RUN))
        for config in cells(nodes, stage)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_published_is_one_of_the_trials_and_the_smaller_recipes_have_what_the_first_round_chose(family):
    report, *others = (
        build_graph(load_recipe(CONFIGS / f"{name}.yaml")) for name in ("images_report", "images", "quickstart_images")
    )
    first, free = settings_of(report, f"trials_{family}"), settings_of(report, f"free_{family}")
    assert free <= first
    chosen = settings_of(report, family)
    assert len(chosen) == 1
    assert chosen <= free | settings_of(report, f"held_{family}")
    assert [settings_of(nodes, family) for nodes in others] == [free, free]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_second_round_holds_every_family_back_by_one_rule_at_the_whole_budget_and_with_a_seed_of_its_own(family):
    nodes = build_graph(load_recipe(CONFIGS / "images_report.yaml"))
    free, held = nodes[f"free_{family}"].config, nodes[f"held_{family}"].config
    doubled = {"dropout": 2 * free.dropout} if hasattr(free, "dropout") else {}
    assert held.model_dump() == free.model_dump() | {"weight_decay": 0.1} | doubled
    published = cells(nodes, family)
    assert {free.budget_tflop} == {config.budget_tflop for config in published}
    assert free.seed not in {config.seed for config in published}
    choice = nodes[f"choice_held_{family}"]
    assert (sorted(choice.needs["models"]), choice.config.split) == ([f"free_{family}", f"held_{family}"], "validation")


CLASSIFIERS = ("cnn", "vae", "flow", "matching")


@pytest.fixture(scope="module")
def classifiers():
    return build_graph(load_recipe(CONFIGS / "generative_classifier.yaml"))


def test_both_sides_of_the_classifiers_have_as_many_trials_at_a_quarter_of_the_budget_which_see_no_test_image(classifiers):
    trials = {name: cells(classifiers, f"trials_{name}") for name in CLASSIFIERS}
    assert {len(configs) for configs in trials.values()} == {8}
    every = [config for configs in trials.values() for config in configs]
    assert {config.class_sets for config in every} == {"validation"}
    assert {config.budget_tflop for config in every} == {cells(classifiers, "cnn")[0].budget_tflop / 4}
    judged = classifiers["choice"].needs["models"] + classifiers["choice"].needs["rivals"]
    assert sorted(judged) == sorted(name for name in classifiers if name.startswith("trials_"))
    assert classifiers["choice"].config.split == "validation"
    assert {config.seed for config in every}.isdisjoint(config.seed for config in cells(classifiers, "cnn"))


def test_the_classifiers_take_the_same_labels_and_differ_from_few_labels_to_many_in_nothing_else(classifiers):
    places = {
        name: [(c.num_labels, c.seed) for c in (*cells(classifiers, f"{name}_few"), *cells(classifiers, name))]
        for name in CLASSIFIERS
    }
    assert len({tuple(found) for found in places.values()}) == 1
    for name in CLASSIFIERS:
        own = {"num_labels": 1, "seed": 1, "class_sets": "test"}
        found = {config.model_copy(update=own) for config in (*cells(classifiers, f"{name}_few"), *cells(classifiers, name))}
        assert len(found) == 1


def test_the_settings_of_a_classifier_are_among_those_that_were_tried(classifiers):
    for name in CLASSIFIERS:
        (setting,) = {config.learning_rate for config in cells(classifiers, name)}
        assert setting in {config.learning_rate for config in cells(classifiers, f"trials_{name}")}
