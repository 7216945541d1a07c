"""What the course says of flows: they invert, know their density, draw in one pass, and pay for it with their architecture."""

from __future__ import annotations

import numpy as np

from stages.common.claims import Claim, Finding, conclude
from stages.common.wording import counted, short, with_interval
from stages.image.compare.claims import gap_finding, of_family, published, rivals_of
from stages.image.compare.study import Study

EXACT = {"float32": 1e-3, "float64": 1e-6}
"""Largest error of a round trip that still counts as exact; images lie in [-1, 1]."""
EXACT_NATS = 1e-6
"""Largest error of a log-determinant that still counts as exact, nats, float64."""


def flows_are_exact(study: Study) -> Claim:
    """What was computed forwards must come back."""
    findings = []
    for one in of_family(study, ["flow"]):
        for dtype, bound in EXACT.items():
            errors = [value for value, _ in published(one, "round_trip_error", dtype=dtype)]
            if errors:
                side = "below" if max(errors) < bound else "above"
                findings.append(Finding(f"{one.label}: {short(max(errors))} in {dtype} ({counted(len(errors), 'seed')})", side))
    return conclude(
        "A flow is exactly invertible",
        "largest |x − f⁻¹(f(x))| over test images, as the flow's own stage measured it",
        f"below {EXACT['float32']:g} in float32 and {EXACT['float64']:g} in float64, in every training",
        findings,
        "below",
        missing="no flow measured its round trip",
    )


def flows_sample_in_one_pass(study: Study) -> Claim:
    """True for coupling flows; an autoregressive one needs a pass for each of its parts."""
    findings = []
    for one in of_family(study, ["flow"]):
        calls, latency = one.fact("num_function_evaluations"), study.estimate(one.label, "latency_ms_per_image")
        assert latency is not None
        words = f"{one.label}: {counted(int(calls), 'call')} one after the other, {with_interval(latency)} ms/image"
        findings.append(Finding(words, "below" if calls == 1 else "above"))
    return conclude(
        "A flow draws a sample in one pass",
        "calls of the network for one sample, one after the other",
        "one call, for every flow",
        findings,
        "below",
        missing="no flow is among the models",
    )


def flow_densities_are_exact(study: Study) -> Claim:
    """The change of volume that a flow states, against the determinant of its whole Jacobian matrix."""
    findings = []
    for one in of_family(study, ["flow"]):
        if errors := [value for value, _ in published(one, "log_det_error")]:
            side = "below" if max(errors) < EXACT_NATS else "above"
            findings.append(Finding(f"{one.label}: {short(max(errors))} nat ({counted(len(errors), 'seed')})", side))
    return conclude(
        "A flow knows the exact density of an image",
        "largest |log-determinant − autograd's| over the seeds, float64, one test image each, as the flow's own stage measured "
        "it; it is the density of an image with noise added, and a bound for the integers",
        f"below {EXACT_NATS:g} nat in every training",
        findings,
        "below",
        missing="no flow compared its log-determinant (it does for images of few values)",
    )


def flows_pay_for_their_architecture(study: Study) -> Claim:
    """The better flow against each family whose network may be any, at the same counted FLOPs."""
    flows = [one for one in of_family(study, ["flow"]) if rivals_of(study, one)]
    findings = []
    if flows:
        best = min(flows, key=lambda one: float(np.mean(list(study.numbers[one.label]["fd"].values.values()))))
        others = [other for other in rivals_of(study, best) if other.family != "flow"]
        findings = [found for other in others if (found := gap_finding(study, best, [other], "fd")) is not None]
    return conclude(
        "A flow's restricted architecture costs quality",
        "Fréchet distance, of the better flow minus that of each other trained family with the same budget",
        "every difference above 0",
        findings,
        "above",
        missing="a flow and another family with the same budget are needed",
    )
