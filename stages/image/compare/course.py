"""The course's claims, one function each (those on flows in `course_flows`); `all_claims` asks them all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stages.common.claims import Claim, Finding, conclude, untestable
from stages.common.verdicts import LEAST_SEEDS, Estimate, spearman
from stages.common.wording import share_of, short, with_interval
from stages.image.compare.claims import (
    gap_finding,
    of_family,
    published_estimate,
    ratio_finding,
    rivals_of,
)
from stages.image.compare.course_flows import (
    flow_densities_are_exact,
    flows_are_exact,
    flows_pay_for_their_architecture,
    flows_sample_in_one_pass,
)
from stages.image.compare.models import END, Contestant
from stages.image.compare.pairs import compare_bits, compare_pairs
from stages.image.compare.study import ITERATIVE, Study

SHARPNESS = ("laplacian_ratio", "hf_ratio")
CLEAR_FACTOR = 2.0
"""Without seeds a ratio of times counts as clear from this factor on."""
NEAR_COPIES = 0.01
"""Share of unseen real images that lie nearer to a training image than the distance below which a sample is a near copy."""
LARGEST_STEP = 4.0
"""A path through latents jumps where one of its 32 steps is more than so many times the mean step."""


def all_claims(study: Study) -> list[Claim]:
    """Return every claim with its outcome."""
    return [
        vae_means_are_blurred(study),
        vae_samples_are_blurred(study),
        gan_is_sharper_than_means(study),
        gan_is_sharper_than_samples(study),
        gan_drops_modes(study),
        vae_latents_are_smooth(study),
        vae_latents_beat_a_cross_fade(study),
        vae_trains_most_evenly(study),
        flows_are_exact(study),
        flow_densities_are_exact(study),
        flows_sample_in_one_pass(study),
        flows_pay_for_their_architecture(study),
        iterative_models_are_best(study),
        iterative_models_are_slowest(study),
        likelihood_is_not_quality(study, study.trained(), "trained families"),
        likelihood_is_not_quality(study, study.contestants, "trained families and classic densities"),
        nothing_is_copied(study),
    ]


def vae_means_are_blurred(study: Study) -> Claim:
    """The mean over all images that a latent may stand for is smoother than any of them."""
    return conclude(
        "A VAE's images are blurred (the decoder's means, which are what is usually shown)",
        "energy of the Laplacian, and power of fine detail, of the means over those of real images",
        "both ratios below 1",
        [ratio_finding(study, one.label, key) for one in of_family(study, ["vae"], "mean") for key in SHARPNESS],
        "below",
        missing="no model gave means of a VAE's decoder",
    )


def vae_samples_are_blurred(study: Study) -> Claim:
    """A sample from p(x | z) has the noise that the mean averages away."""
    return conclude(
        "A VAE's images are blurred (its samples, which is what the model says)",
        "the same ratios, of samples from p(x | z)",
        "both ratios below 1",
        [ratio_finding(study, one.label, key) for one in of_family(study, ["vae"]) for key in SHARPNESS],
        "below",
        missing="no VAE is among the models",
    )


def gan_is_sharper_than_means(study: Study) -> Claim:
    """What a discriminator sees at once, an average cannot afford."""
    return _gan_is_sharper(study, "the decoder's means", "mean")


def gan_is_sharper_than_samples(study: Study) -> Claim:
    """Samples have noise where means are smooth, and noise counts as fine detail."""
    return _gan_is_sharper(study, "its samples", END)


def gan_drops_modes(study: Study) -> Claim:
    """A generator is not punished for what it never draws."""
    findings = []
    for gan in of_family(study, ["gan"]):
        others = rivals_of(study, gan)
        for key, sign in (("class_tv", 1), ("coverage", -1), ("recall", -1), ("modes", -1)):
            found = gap_finding(study, gan, others, key) if others else None
            if found is not None:
                findings.append(found if sign > 0 else found.mirrored())
    return conclude(
        "A GAN drops modes",
        "distance of class shares, coverage, recall and (stacked images) modes reached, of the GAN minus the mean of the other "
        "trained families",
        "class distance above 0, coverage, recall and modes below 0",
        findings,
        "above",
        missing="a GAN and another trained family with the same budget are needed",
    )


def vae_latents_are_smooth(study: Study) -> Claim:
    """A small step in the latent space is a small step between images."""
    measured = [(one, published_estimate(one, "largest_step_ratio")) for one in of_family(study, ["vae"])]
    return conclude(
        "A VAE's latent space is smooth",
        "on arcs between latents of test images: the largest of 32 steps between decoder means, in mean steps",
        f"below {LARGEST_STEP:g}: no step makes more than an eighth of the way",
        [
            Finding.of(f"{one.label}: largest step {with_interval(found)} mean steps", found, LARGEST_STEP)
            for one, found in measured
            if found is not None
        ],
        "below",
        missing="no model measured the path between its latents",
    )


def vae_latents_beat_a_cross_fade(study: Study) -> Claim:
    """Whoever fades one image out and another in needs no latents."""
    found = [
        (f"{one.label}: {words}", study.estimate(one.label, key))
        for one in of_family(study, ["vae"])
        for key, words in (("path_excess", "length"), ("left_excess", "share of neither class"))
    ]
    return conclude(
        "A VAE's latent space is smooth (against a cross-fade in pixels, as the extractor sees it)",
        "on arcs between latents of test images, minus the same of cross-fades between the same ends: length of the way in "
        "features over the distance of its ends, and share of images between whose class is that of neither end",
        "every difference below 0",
        [Finding.of(f"{words} {with_interval(each)}", each, 0.0) for words, each in found if each is not None],
        "below",
        missing="no VAE kept the images on the way between its latents (one that was made before they were kept has none)",
    )


def vae_trains_most_evenly(study: Study) -> Claim:
    """One loss that only falls, against a game and against losses with random times."""
    findings, spreads = [], {}
    for vae in of_family(study, ["vae"]):
        rivals = rivals_of(study, vae)
        spreads |= {one.label: _relative_spread(study, one) for one in (vae, *rivals)}
        for other in rivals:
            numbers = [study.number(one.label, "gradient_spread") for one in (vae, other)]
            if all(number is not None and len(number.values) >= LEAST_SEEDS for number in numbers):
                findings += [found for found in [gap_finding(study, vae, [other], "gradient_spread")] if found is not None]
    claim = conclude(
        "A VAE trains most stably",
        "standard deviation of the logarithm of the gradient norm over the second half of the steps (the worst network), which "
        "falls as batches grow: each family has the batch that suits it",
        "the VAE's spread is below that of every other trained family",
        findings,
        "below",
        missing=f"a VAE and another family with at least {LEAST_SEEDS} seeds each are needed: one training shows no spread",
    )
    beside = ", ".join(f"{label} {spread}" for label, spread in spreads.items())
    return replace(claim, evidence=f"{claim.evidence}; final distance varies over seeds by {beside}") if findings else claim


def iterative_models_are_best(study: Study) -> Claim:
    """The best of them against each of the others."""
    iterative = [one for one in of_family(study, ITERATIVE) if rivals_of(study, one)]
    findings = []
    if iterative:
        best = min(iterative, key=lambda one: float(np.mean(list(study.numbers[one.label]["fd"].values.values()))))
        others = [other for other in rivals_of(study, best) if other.family not in ITERATIVE]
        findings = [found for other in others if (found := gap_finding(study, best, [other], "fd")) is not None]
    return conclude(
        "Diffusion and flow matching give the best images",
        "Fréchet distance, of the better of the two minus that of each other trained family with the same budget",
        "every difference below 0",
        findings,
        "below",
        missing="flow matching or diffusion and another family with the same budget are needed",
    )


def iterative_models_are_slowest(study: Study) -> Claim:
    """Each of them against each other family."""
    sentence, statistic = (
        "Diffusion and flow matching sample slowest",
        "milliseconds for a sample, over those of each other family",
    )
    rule = f"every ratio above 1 (below {LEAST_SEEDS} seeds: above {CLEAR_FACTOR:g})"
    iterative = of_family(study, ITERATIVE)
    others = [one for one in study.trained() if one.family not in ITERATIVE]
    findings = [_latency_finding(study, one, other) for one in iterative for other in others]
    missing = "flow matching or diffusion and another trained family are needed"
    return conclude(sentence, statistic, rule, findings, "above", missing=missing)


def likelihood_is_not_quality(study: Study, among: Sequence[Contestant], who: str) -> Claim:
    """One pair that the two measures order differently, both clearly, is enough.

    Asked of the trained families alone too: a density that predicts pixels well and draws noise says nothing of them.
    """
    sentence = f"A better likelihood does not mean better images ({who})"
    statistic = (
        "pairs ordered one way by bits per dimension (by bounds, where the likelihood itself is not known) and the other way by "
        "Fréchet distance; Spearman's correlation"
    )
    rule = "at least one such pair, clear in both (Holm over all pairs); does not hold if none is and the correlation is clear"
    models = [one for one in among if one.is_model and one.kind and study.is_matched(one)]
    if len(models) < 3:
        missing = f"three models with a likelihood are needed, and {len(models)} are there"
        return untestable(sentence, statistic, rule, missing)
    pairs = list(itertools.combinations(models, 2))
    both = list(zip(compare_bits(study, pairs), compare_pairs(study, "fd", pairs), strict=True))
    known = [(bits, fd) for bits, fd in both if bits.outcome and fd.outcome]
    contrary = [bits for bits, fd in known if {bits.outcome, fd.outcome} == {"better", "worse"}]
    alike = sum(bits.outcome == fd.outcome != "not separable" for bits, fd in known)
    columns = [
        [float(np.mean(list(study.numbers[one.label][key].values.values()))) for one in models] for key in ("bits_per_dim", "fd")
    ]
    rho, (low, high), p_value = spearman(*columns, seed=study.seed)
    evidence = (
        f"{len(contrary)} of {len(known)} pairs are ordered the other way"
        + (f" (such as {contrary[0].first.label} and {contrary[0].second.label})" if contrary else "")
        + f", {alike} the same way; Spearman {rho:.2f} over {len(models)} models, random orders give {low:.2f} to {high:.2f}, "
        f"p = {p_value:.2f}"
    )
    outcome = "holds" if contrary else "does not hold" if p_value < 0.05 and rho > 0 else "not separable"
    return Claim(sentence=sentence, statistic=statistic, rule=rule, evidence=evidence, outcome=outcome)


def nothing_is_copied(study: Study) -> Claim:
    """A copy lies nearer to the training images than unseen real images do."""
    findings = []
    for one in study.trained():
        near, shares = (study.estimate(one.label, key) for key in ("nn_ratio", "memorised_share"))
        copies = study.estimate(one.label, "duplicate_share")
        if near is not None and shares is not None and copies is not None:
            num = study.anchors.num_samples * len(one.runs)
            findings += [
                Finding.of(f"{one.label}: {with_interval(near)}", near, 1.0),
                _unless_above(f"near copies {share_of(num, shares)}", shares, NEAR_COPIES),
                _unless_above(f"exact ones {share_of(num, copies)}", copies, 0.0),
            ]
    return conclude(
        "A generative model makes new images; it does not copy",
        "median distance to the nearest training image, of samples over that of unseen real images; share of near copies, which "
        f"{NEAR_COPIES:g} of unseen real images are by definition; share of exact copies",
        f"every trained model's ratio above 1, near copies not clearly above {NEAR_COPIES:g}, and exact ones not clearly above 0",
        findings,
        "above",
        missing="no trained model is there",
    )


def _unless_above(words: str, share: Estimate, bound: float) -> Finding:
    """Return a finding that speaks for the claim ("above") unless a share is clearly above what unseen real images have."""
    found = Finding.of(words, share, bound)
    return found.mirrored() if found.side == "above" else Finding(words, "above")


def _gan_is_sharper(study: Study, what: str, sample_set: str) -> Claim:
    pairs = itertools.product(of_family(study, ["gan"]), of_family(study, ["vae"], sample_set), SHARPNESS)
    return conclude(
        f"A GAN's images are sharper than a VAE's ({what})",
        f"the same ratios, of the GAN minus those of the VAE ({what})",
        "both differences above 0",
        [found for gan, vae, key in pairs if (found := gap_finding(study, gan, [vae], key)) is not None],
        "above",
        missing=f"a GAN and a VAE ({what}) are needed, and one of them is missing",
    )


def _relative_spread(study: Study, one: Contestant) -> str:
    values = list(study.numbers[one.label]["fd"].values.values())
    return f"{100 * np.std(values, ddof=1) / np.mean(values):.0f} %" if len(values) > 1 else "unknown"


def _latency_finding(study: Study, one: Contestant, other: Contestant) -> Finding:
    words = f"{one.label} ÷ {other.label}"
    found = study.difference(one, other, "latency_ms_per_image")
    if found is not None:
        mean, low, high = (short(math.exp(value)) for value in (found.mean, found.low, found.high))
        return Finding.of(f"{words}: {mean} [{low}, {high}]", found, 0.0)
    times = [float(np.mean(list(study.numbers[each.label]["latency_ms_per_image"].values.values()))) for each in (one, other)]
    ratio = times[0] / times[1] if times[1] > 0 else math.inf
    side = "above" if ratio > CLEAR_FACTOR else "below" if ratio < 1 / CLEAR_FACTOR else "either"
    return Finding(f"{words}: {short(ratio)}", side)
