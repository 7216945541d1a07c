"""Verdicts on pairs of models, the best of a column, and what a difference of bounds means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stages.image.compare.pairs import best, classic_pairs, compare_bits, compare_pairs, trained_pairs
from tests.image.comparisons import TFLOP, contestant, number, study

VAE, GAN, FLOW = contestant("vae", "vae"), contestant("gan", "gan"), contestant("flow", "flow")


def outcomes(pairs):
    return {(pair.first.label, pair.second.label): pair.outcome for pair in pairs}


def test_a_clear_difference_is_a_verdict_and_a_small_one_is_not():
    found = study({VAE: {"fd": number(2.0, 2.1, 1.9)}, GAN: {"fd": number(2.1, 1.9, 2.05)}, FLOW: {"fd": number(8.0, 8.2, 8.1)}})
    assert outcomes(compare_pairs(found, "fd", trained_pairs(found))) == {
        ("vae", "gan"): "not separable",
        ("vae", "flow"): "better",
        ("gan", "flow"): "better",
    }


def test_a_difference_that_holds_alone_may_not_hold_among_many():
    alone = study({VAE: {"fd": number(2.0, 2.1, 1.9)}, GAN: {"fd": number(2.5, 2.45, 2.5)}})
    (pair,) = compare_pairs(alone, "fd", trained_pairs(alone))
    assert pair.outcome == "better"
    assert 0.005 < pair.p_value == pair.found.p_value < 0.05
    more = {contestant(f"x{i}", "x"): {"fd": number(2.15, 2.35, 2.25)} for i in range(4)}
    many = study({VAE: {"fd": number(2.0, 2.1, 1.9)}, GAN: {"fd": number(2.2, 2.25, 2.2)}, **more})
    pair = compare_pairs(many, "fd", trained_pairs(many))[0]
    assert (pair.first.label, pair.second.label, pair.outcome) == ("vae", "gan", "not separable")
    assert pair.found.p_value < 0.05 < pair.p_value


def test_budgets_that_are_not_matched_give_no_verdict():
    longer = contestant("longer", "gan", flops=1.2 * TFLOP)
    found = study({VAE: {"fd": number(2.0, 2.1, 1.9)}, longer: {"fd": number(8.0, 8.1, 8.2)}})
    (pair,) = compare_pairs(found, "fd", trained_pairs(found))
    assert (pair.outcome, pair.found, pair.note) == (None, None, "budgets are not matched: no verdict")


def test_classic_densities_are_compared_with_what_was_trained_only():
    gmm, pixels = contestant("gmm", "gmm", flops=0), contestant("pixels", "pixels", flops=0)
    found = study({VAE: {}, gmm: {}, pixels: {}, contestant("vae (mean)", "vae", sample_set="mean"): {}})
    assert [(a.label, b.label) for a, b in classic_pairs(found)] == [("vae", "gmm"), ("vae", "pixels")]
    assert trained_pairs(found) == []


def bits(shift, seeds=3):
    generator = np.random.default_rng(0)
    return generator.gamma(4.0, 0.5, size=40) + shift + 0.001 * generator.standard_normal((seeds, 40))


def test_bits_are_compared_on_the_same_images_and_a_model_without_a_likelihood_is_left_out():
    a, b = contestant("a", "vae", bits=bits(0.0)), contestant("b", "flow", bits=bits(0.1))
    found = study({a: {}, b: {}, contestant("gan", "gan", kind=None): {}})
    (pair,) = compare_bits(found, trained_pairs(found))
    assert (pair.first.label, pair.second.label, pair.outcome) == ("a", "b", "better")
    assert pair.found.mean == pytest.approx(-0.1, abs=0.01)


def renumbered(one, first):
    """The same trainings under other seeds, from `first` on."""
    return replace(one, runs=dict(enumerate(one.runs.values(), first)))


@pytest.mark.parametrize("first", [0, 2, 3])
def test_bits_of_families_with_other_seeds_are_compared_over_all_trainings_of_both(first):
    noise = np.random.default_rng(1).normal(scale=0.001, size=40)
    spread = np.stack([noise - 0.1, noise, noise + 0.1])
    a, b = contestant("a", "vae", bits=bits(0.0) + spread), contestant("b", "flow", bits=bits(0.0) + spread)
    found = study({a: {}, renumbered(b, first): {}})
    (pair,) = compare_bits(found, trained_pairs(found))
    assert (pair.outcome, pair.found.num_seeds, pair.found.method) == ("not separable", 3, "images and seeds")
    assert pair.found.mean == pytest.approx(0, abs=1e-9)
    assert pair.found.high > 0.1, "the spread from training to training counts"


@pytest.mark.parametrize(
    ("better", "worse", "note"),
    [
        ("exact", "exact", "both exact"),
        ("lower bound", "exact", "holds for the models: the bound is on the better side"),
        ("exact", "lower bound", "the worse is a bound"),
        ("lower bound", "lower bound", "of two bounds: the worse model may be better than its bound"),
        ("numerical", "exact", "holds for the models: the bound is on the better side"),
        ("exact", "numerical", "the worse is a bound"),
        ("lower bound", "numerical", "of two bounds: the worse model may be better than its bound"),
    ],
)
def test_a_difference_of_bounds_says_what_it_cannot_say(better, worse, note):
    models = [contestant("a", "a", bits=bits(0.0), kind=better), contestant("b", "b", bits=bits(0.1), kind=worse)]
    found = study({one: {} for one in models})
    (pair,) = compare_bits(found, trained_pairs(found))
    assert pair.note.startswith(note)


def test_what_more_steps_of_the_solver_might_move_is_no_difference_of_the_models():
    sure = contestant("sure", "flow", bits=bits(0.005), kind="exact")
    for reach, outcome in ((0.001, "better"), (0.02, "not separable")):
        change = {"name": "likelihood_solver_change", "interval": [-reach, reach / 2]}
        solved = contestant("solved", "matching", bits=bits(0.0), kind="numerical", metrics=[change])
        found = study({solved: {}, sure: {}})
        (pair,) = compare_bits(found, trained_pairs(found))
        assert pair.outcome == outcome
        assert pair.note.startswith("within the error of the solver") == (outcome == "not separable")


def test_the_best_of_a_column_is_named_only_if_every_other_can_be_told_from_it():
    clear = study({VAE: {"fd": number(2.0, 2.1, 1.9)}, GAN: {"fd": number(8.0, 8.1, 7.9)}})
    close = study({VAE: {"fd": number(2.0, 2.1, 1.9)}, GAN: {"fd": number(2.1, 1.9, 2.05)}})
    assert (best(clear, "fd"), best(close, "fd")) == ("vae", None)
    recall = study({VAE: {"recall": number(0.5, 0.5, 0.51)}, GAN: {"recall": number(0.9, 0.91, 0.9)}})
    assert best(recall, "recall") == "gan"
    assert best(clear, "laplacian_ratio") is None
    # The second by its mean can be told from the best, the third cannot, for it varies more.
    third = study({VAE: {"fd": number(2.0, 2.1, 1.9)}, GAN: {"fd": number(4.0, 4.1, 3.9)}, FLOW: {"fd": number(2.0, 9.0, 3.0)}})
    assert outcomes(compare_pairs(third, "fd", trained_pairs(third)))["vae", "flow"] == "not separable"
    assert best(third, "fd") is None


def test_the_star_never_contradicts_the_verdicts_of_the_table():
    generator, found = np.random.default_rng(0), set()
    for _ in range(60):
        models = [contestant(f"m{i}", "x", flops=TFLOP if i < 4 else 0) for i in range(6)]
        shown = study({one: {"fd": number(*generator.normal(i / 2, 0.15, size=3) + 5)} for i, one in enumerate(models)})
        pairs = compare_pairs(shown, "fd", trained_pairs(shown)) + compare_pairs(shown, "fd", classic_pairs(shown))
        star = best(shown, "fd")
        unclear = [pair for pair in pairs if "m0" in (pair.first.label, pair.second.label) and pair.outcome != "better"]
        assert star in (None, "m0")
        assert (star == "m0") == (not unclear)
        found.add(star)
    assert found == {None, "m0"}


def test_another_way_to_draw_from_a_model_is_no_rival_of_it():
    means = contestant("vae (mean)", "vae", sample_set="mean")
    found = study({VAE: {"fd": number(2.0, 2.1, 1.9)}, means: {"fd": number(1.9, 2.0, 1.8)}, GAN: {"fd": number(8.0, 8.1, 7.9)}})
    assert best(found, "fd") == "vae"


def test_a_density_without_training_wins_no_prize_for_its_cost():
    quick = contestant("pixels", "independent", flops=0)
    numbers = {VAE: (0.10, 0.11, 0.12), GAN: (5.0, 5.5, 6.0), quick: (0.001, 0.0011, 0.0012)}
    assert (
        best(study({one: {"latency_ms_per_image": number(*found)} for one, found in numbers.items()}), "latency_ms_per_image")
        == "vae"
    )


def test_times_are_compared_by_their_ratio():
    slow = contestant("slow", "diffusion")
    found = study(
        {
            VAE: {"latency_ms_per_image": number(0.010, 0.011, 0.012)},
            GAN: {"latency_ms_per_image": number(0.050, 0.055, 0.060)},
            slow: {"latency_ms_per_image": number(8.0, 9.5, 7.5)},
        }
    )
    # The slow one varies by a second thousand times what lies between the others, and no more than they in proportion.
    assert best(found, "latency_ms_per_image") == "vae"
    assert found.difference(GAN, VAE, "latency_ms_per_image").mean == pytest.approx(np.log(5), abs=0.01)
    assert (
        best(study({VAE: {"cpu_seconds": number(0.0, 0.0, 0.0)}, GAN: {"cpu_seconds": number(1.0, 1.0, 1.1)}}), "cpu_seconds")
        is None
    )


def test_a_model_that_trained_longer_is_not_marked_as_best():
    longer = contestant("longer", "gan", flops=2 * TFLOP)
    found = study({VAE: {"fd": number(5.0, 5.1)}, FLOW: {"fd": number(8.0, 8.1)}, longer: {"fd": number(1.0, 1.1)}})
    assert found.is_matched(VAE)
    assert not found.is_matched(longer)
    assert best(found, "fd") is None
    sure = study(
        {
            VAE: {"fd": number(5.0, deviation=0.1)},
            FLOW: {"fd": number(8.0, deviation=0.1)},
            longer: {"fd": number(1.0, deviation=0.1)},
        }
    )
    assert best(sure, "fd") == "vae"
