"""The course's claims on models whose numbers are given: each rule can say holds, does not hold, not separable, not testable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stages.common.claims import Finding, judged
from stages.common.verdicts import Difference, estimate
from stages.image.compare.course import (
    all_claims,
    gan_drops_modes,
    gan_is_sharper_than_means,
    gan_is_sharper_than_samples,
    iterative_models_are_best,
    iterative_models_are_slowest,
    nothing_is_copied,
    vae_latents_are_smooth,
    vae_latents_beat_a_cross_fade,
    vae_means_are_blurred,
    vae_samples_are_blurred,
    vae_trains_most_evenly,
)
from stages.image.compare.course_flows import (
    flow_densities_are_exact,
    flows_are_exact,
    flows_pay_for_their_architecture,
    flows_sample_in_one_pass,
)
from tests.image.comparisons import contestant, number, study

VAE, GAN = contestant("vae", "vae"), contestant("gan", "gan")
MEANS = contestant("vae (mean)", "vae", sample_set="mean")
FM, DIFFUSION = contestant("flow matching", "flow_matching"), contestant("diffusion", "diffusion")
COUPLING = contestant("flow, coupling", "flow")
NEAR_ONE = number(0.97, 1.0, 1.03)
LOW, HIGH = number(0.5, 0.52, 0.51), number(1.5, 1.52, 1.51)


def sharpness(laplacian, hf=None):
    return {"laplacian_ratio": laplacian, "hf_ratio": hf or laplacian}


@pytest.mark.parametrize(
    ("laplacian", "hf", "outcome"),
    [(LOW, LOW, "holds"), (LOW, NEAR_ONE, "not separable"), (LOW, HIGH, "does not hold"), (HIGH, NEAR_ONE, "does not hold")],
)
def test_blurred_needs_both_ratios_below_one(laplacian, hf, outcome):
    claim = vae_means_are_blurred(study({VAE: sharpness(HIGH), MEANS: sharpness(laplacian, hf)}))
    assert claim.outcome == outcome
    assert "vae (mean): Laplacian ÷ real" in claim.evidence


def test_means_and_samples_of_a_vae_are_two_claims():
    found = study({VAE: sharpness(HIGH), MEANS: sharpness(LOW)})
    assert (vae_means_are_blurred(found).outcome, vae_samples_are_blurred(found).outcome) == ("holds", "does not hold")


@pytest.mark.parametrize(
    ("gan", "outcome"), [(NEAR_ONE, "holds"), (LOW, "not separable"), (number(0.1, 0.12, 0.11), "does not hold")]
)
def test_a_gan_is_compared_with_the_means(gan, outcome):
    found = study({VAE: sharpness(HIGH), MEANS: sharpness(LOW), GAN: sharpness(gan)})
    assert gan_is_sharper_than_means(found).outcome == outcome


def test_a_gan_is_compared_with_the_samples_in_a_claim_of_its_own():
    found = study({VAE: sharpness(HIGH), MEANS: sharpness(LOW), GAN: sharpness(NEAR_ONE)})
    claims = gan_is_sharper_than_means(found), gan_is_sharper_than_samples(found)
    assert [claim.outcome for claim in claims] == ["holds", "does not hold"]
    assert [claim.sentence for claim in claims] == [
        "A GAN's images are sharper than a VAE's (the decoder's means)",
        "A GAN's images are sharper than a VAE's (its samples)",
    ]
    assert "gan minus vae:" in claims[1].evidence


def modes(tv, coverage, recall):
    return {
        key: number(value, value + 0.01, value - 0.01)
        for key, value in (("class_tv", tv), ("coverage", coverage), ("recall", recall))
    }


@pytest.mark.parametrize(
    ("gan", "outcome"),
    [
        ((0.3, 0.4, 0.1), "holds"),
        ((0.3, 0.4, 0.7), "not separable"),
        ((0.3, 0.4, 0.95), "does not hold"),
        ((0.01, 0.9, 0.9), "does not hold"),
    ],
)
def test_dropping_modes_needs_all_three_signs_against_the_mean_of_the_others(gan, outcome):
    found = study({GAN: modes(*gan), VAE: modes(0.05, 0.8, 0.6), FM: modes(0.05, 0.9, 0.8)})
    assert gan_drops_modes(found).outcome == outcome


def test_a_gan_with_another_budget_is_compared_with_no_one():
    longer = contestant("gan", "gan", flops=2e12)
    claim = gan_drops_modes(study({longer: modes(0.3, 0.4, 0.1), VAE: modes(0.05, 0.8, 0.6)}))
    assert claim.outcome == "cannot be tested here"
    assert claim.evidence == "because a GAN and another trained family with the same budget are needed"


def smooth(value):
    rows = [{"name": "largest_step_ratio", "value": value, "interval": [value - 0.5, value + 0.5], "split": "test"}]
    return contestant("vae", "vae", seeds=1, metrics=rows)


@pytest.mark.parametrize(("value", "outcome"), [(1.5, "holds"), (4.2, "not separable"), (9.0, "does not hold")])
def test_a_latent_space_is_smooth_if_no_step_jumps(value, outcome):
    assert vae_latents_are_smooth(study({smooth(value): {}})).outcome == outcome


BELOW, ABOVE, AROUND = number(-0.2, -0.21, -0.19), number(0.2, 0.21, 0.19), number(-0.2, 0.1, 0.12)


@pytest.mark.parametrize(
    ("length", "left", "outcome"),
    [
        (BELOW, BELOW, "holds"),
        (BELOW, AROUND, "not separable"),
        (BELOW, ABOVE, "does not hold"),
        (ABOVE, BELOW, "does not hold"),
        (BELOW, None, "holds"),  # images without classes
        (None, None, "cannot be tested here"),  # an artifact without paths
    ],
)
def test_latents_beat_a_cross_fade_if_both_differences_are_clearly_below_zero(length, left, outcome):
    found = {key: value for key, value in (("path_excess", length), ("left_excess", left)) if value is not None}
    assert vae_latents_beat_a_cross_fade(study({VAE: found})).outcome == outcome


def test_stability_needs_three_seeds_and_the_smallest_spread():
    spreads = {VAE: number(0.1, 0.11, 0.12), GAN: number(0.9, 1.0, 0.8), FM: number(0.4, 0.5, 0.45)}
    distances = number(2.0, 2.2, 1.8)
    found = {one: {"gradient_spread": spread, "fd": distances} for one, spread in spreads.items()}
    claim = vae_trains_most_evenly(study(found))
    assert claim.outcome == "holds"
    assert claim.evidence.endswith("final distance varies over seeds by vae 10 %, gan 10 %, flow matching 10 %")
    found[VAE] = {"gradient_spread": number(0.6, 0.7, 0.65), "fd": distances}
    assert vae_trains_most_evenly(study(found)).outcome == "does not hold"
    few = {one: {"gradient_spread": number(1.0), "fd": number(1.0)} for one in spreads}
    assert vae_trains_most_evenly(study(few)).outcome == "cannot be tested here"


def round_trip(float32, float64):
    rows = [
        {"name": "round_trip_error", "value": value, "dtype": dtype}
        for dtype, value in (("float32", float32), ("float64", float64))
    ]
    return contestant("flow, coupling", "flow", metrics=rows)


@pytest.mark.parametrize(
    ("errors", "outcome"), [((1e-5, 1e-12), "holds"), ((1e-5, 1e-3), "does not hold"), ((0.1, 1e-12), "does not hold")]
)
def test_a_flow_is_exact_by_what_its_own_stage_measured(errors, outcome):
    assert flows_are_exact(study({round_trip(*errors): {}})).outcome == outcome


def test_a_flow_without_a_round_trip_is_not_called_exact():
    assert flows_are_exact(study({COUPLING: {}, VAE: {}})).outcome == "cannot be tested here"


def test_one_pass_holds_for_coupling_and_not_for_autoregressive_flows():
    latency = {"latency_ms_per_image": number(1.0)}
    slow = contestant("flow, autoregressive", "flow", num_function_evaluations=16)
    assert flows_sample_in_one_pass(study({COUPLING: latency})).outcome == "holds"
    both = flows_sample_in_one_pass(study({COUPLING: latency, slow: latency}))
    assert both.outcome == "does not hold"
    assert "flow, autoregressive: 16 calls" in both.evidence


@pytest.mark.parametrize(
    ("gan", "outcome"), [((8.0, 8.1, 7.9), "holds"), ((1.1, 0.9, 1.0), "not separable"), ((0.2, 0.21, 0.2), "does not hold")]
)
def test_the_better_of_the_iterative_models_is_held_against_each_of_the_others(gan, outcome):
    numbers = {FM: number(1.0, 1.1, 1.0), DIFFUSION: number(3.0, 3.1, 3.2), VAE: number(5.0, 5.1, 4.9), GAN: number(*gan)}
    claim = iterative_models_are_best(study({one: {"fd": values} for one, values in numbers.items()}))
    assert claim.outcome == outcome
    assert "diffusion" not in claim.evidence


@pytest.mark.parametrize(
    ("fm", "vae", "outcome"),
    [
        ((7.0, 7.1, 6.9), (0.1, 0.11, 0.1), "holds"),
        ((7.0,), (0.1,), "holds"),
        ((0.15,), (0.1,), "not separable"),
        ((0.01,), (0.1,), "does not hold"),
        ((0.1, 0.2, 0.05), (0.1, 0.11, 0.1), "not separable"),
    ],
)
def test_slowest_goes_by_the_ratio_of_times(fm, vae, outcome):
    numbers = {FM: number(*fm), VAE: number(*vae)}
    claim = iterative_models_are_slowest(study({one: {"latency_ms_per_image": values} for one, values in numbers.items()}))
    assert claim.outcome == outcome


def with_bits(name, bits, fd, **facts):
    generator = np.random.default_rng(0)
    values = generator.gamma(4.0, 0.5, size=40) + bits + 0.001 * generator.standard_normal((3, 40))
    model = contestant(name, name, bits=values, **facts)
    return model, {"bits_per_dim": number(*values.mean(axis=1)), "fd": number(fd, fd + 0.05, fd - 0.05)}


def of_likelihood(models):
    """Return the claims on the trained families and on all densities."""
    return [
        claim
        for claim in all_claims(replace(study(dict(models)), num_resamples=1000))
        if claim.sentence.startswith("A better likelihood")
    ]


def test_one_pair_in_two_orders_shows_that_likelihood_is_not_quality():
    apart = [with_bits("a", 0.0, 9.0), with_bits("b", 0.5, 1.0), with_bits("c", 1.0, 5.0)]
    for claim in of_likelihood(apart):
        assert claim.outcome == "holds"
        start = "2 of 3 pairs are ordered the other way (such as a and b), 1 the same way; Spearman -0.50"
        assert claim.evidence.startswith(start)
        assert "p = " in claim.evidence


def test_equal_orders_of_many_models_speak_for_likelihood_and_few_models_for_nothing():
    alike = [with_bits(name, place, 1.0 + place) for place, name in enumerate("abcdef")]
    assert of_likelihood(alike)[0].outcome == "does not hold"
    assert of_likelihood(alike[:3])[0].outcome == "not separable"
    assert of_likelihood(alike[:2])[0].evidence == "because three models with a likelihood are needed, and 2 are there"


def test_a_baseline_that_predicts_well_and_draws_badly_says_nothing_of_the_trained_families():
    alike = [with_bits(name, place, 1.0 + place) for place, name in enumerate("abcdef")]
    trained, everything = of_likelihood([*alike, with_bits("pixels", 2.5, 40.0, flops=0)])
    assert (trained.outcome, everything.outcome) == ("does not hold", "holds")
    assert "(trained families)" in trained.sentence
    assert "pixels" not in trained.evidence
    assert "pixels" in everything.evidence


@pytest.mark.parametrize(
    ("ratio", "outcome"), [((1.2, 1.3, 1.25), "holds"), ((0.9, 1.1, 1.05), "not separable"), ((0.0, 0.01, 0.0), "does not hold")]
)
def test_a_model_that_lies_nearer_to_train_than_real_images_do_copies(ratio, outcome):
    found = study({VAE: copying(1.2, 1.3, 1.25), GAN: copying(*ratio)})
    assert nothing_is_copied(found).outcome == outcome


def test_a_ratio_within_the_noise_of_the_real_images_is_no_verdict():
    found = copying(0.988, 0.99, 0.992)
    assert nothing_is_copied(study({VAE: found})).outcome == "does not hold"
    unsure = found | {"nn_ratio": replace(found["nn_ratio"], common=0.01, common_degrees=435)}
    assert nothing_is_copied(study({VAE: unsure})).outcome == "not separable"


@pytest.mark.parametrize(
    ("near", "exact", "outcome"),
    [
        ((0.01, 0.012, 0.009), (0, 0, 0), "holds"),
        ((0.4, 0.5, 0.45), (0, 0, 0), "does not hold"),
        ((0.01, 0.012, 0.009), (0.03, 0.04, 0.035), "does not hold"),
        ((0.01, 0.012, 0.009), (0.001, 0, 0), "holds"),
    ],
)
def test_copies_among_new_images_are_copies(near, exact, outcome):
    found = nothing_is_copied(study({VAE: copying(1.2, 1.3, 1.25, near=near, exact=exact)}))
    assert found.outcome == outcome
    assert ("exact ones none of " in found.evidence) == (max(exact) == 0)


def copying(*ratio, near=(0.01, 0.01, 0.01), exact=(0.0, 0.0, 0.0)):
    return {"nn_ratio": number(*ratio), "memorised_share": number(*near), "duplicate_share": number(*exact)}


def found_with(mean, p_value):
    reach = 1.0 if p_value < 0.05 else 2 * mean
    return Difference(mean=mean, low=mean - reach, high=mean + reach, num_seeds=5, method="pooled seeds", p_value=p_value)


def test_one_part_of_many_refutes_a_claim_only_beyond_what_chance_makes_of_them_all():
    unsure = [Finding.of("", found_with(0.1, 0.5), 0.0)] * 4
    outcomes = {p: judged([Finding.of("", found_with(2.0, p), 0.0), *unsure], "below") for p in (0.04, 0.02, 0.005)}
    assert outcomes == {0.04: "not separable", 0.02: "not separable", 0.005: "does not hold"}
    assert judged([Finding.of("", found_with(2.0, 0.04), 0.0)], "below") == "does not hold"
    assert judged([Finding.of("", found_with(2.0, 0.04), 0.0)] * 3, "above") == "holds"
    mirrored = [Finding.of("", found_with(2.0, 0.005), 0.0).mirrored(), *unsure]
    assert (judged(mirrored, "below"), judged(mirrored, "above")) == ("not separable", "does not hold")
    certain = Finding("one call", "above")
    assert judged([certain, *unsure], "below") == "does not hold"


def test_an_interval_grows_with_the_number_of_parts_as_students_t_does():
    found = estimate(number(1.5, 1.9, 1.7))  # 1.7 -+ 4.303 * 0.115 = 1.203 at 95 %, 6.205 * 0.115 = 0.984 at 97.5 %
    part = Finding.of("", found, 1.0)
    assert [part.side_among(num) for num in (1, 2)] == ["above", "either"]
    assert Finding.of("", found, 0.97).side_among(2) == "above"


def test_without_the_right_models_every_claim_says_why_it_cannot_be_tested():
    claims = all_claims(study({contestant("a", "a"): {}, contestant("b", "b"): {}}))
    assert len(claims) == 17
    assert {claim.outcome for claim in claims} == {"cannot be tested here"}
    assert all(claim.evidence.startswith("because ") for claim in claims)


@pytest.mark.parametrize(("error", "outcome"), [(1e-14, "holds"), (1e-3, "does not hold")])
def test_a_flow_knows_its_density_by_what_its_own_stage_measured(error, outcome):
    flow = contestant("flow, coupling", "flow", metrics=[{"name": "log_det_error", "value": error}])
    assert flow_densities_are_exact(study({flow: {}})).outcome == outcome
    assert flow_densities_are_exact(study({COUPLING: {}})).outcome == "cannot be tested here"


@pytest.mark.parametrize(
    ("of_flows", "outcome"),
    [((8.0, 9.0), "holds"), ((8.0, 1.0), "does not hold"), ((8.0, 4.05), "not separable")],
)
def test_the_price_of_a_flows_architecture_is_that_of_the_better_flow(of_flows, outcome):
    flows = [contestant(f"flow {index}", "flow") for index in range(2)]
    numbers = {one: {"fd": number(mean, mean + 0.1, mean - 0.1)} for one, mean in zip(flows, of_flows, strict=True)}
    claim = flows_pay_for_their_architecture(study(numbers | {VAE: {"fd": number(4.0, 4.1, 3.9)}}))
    assert claim.outcome == outcome
