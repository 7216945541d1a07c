"""What the comparison says: the section's head, the tested claims, metrics, `classifiers.json` and the card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

from pipeline.contract import Context, write_bytes, write_json
from stages.common.claims import RULE_OF_OUTCOMES, Claim
from stages.common.images.grid import Grid
from stages.image.generative_classifier.estimates import share
from stages.image.generative_classifier.study import Pair, Study


def open_section(context: Context) -> None:
    """Say what the stage is about."""
    context.section.describe(
        title="Generative models as classifiers",
        idea="A model that knows how probable an image is for every class is a classifier: the class for which the image is most "
        "probable wins. Its rival learns only where one class ends and the next begins; which of them needs fewer labels, "
        "whose confidence can be believed, and who notices that an image is of no class at all, is measured here.",
        formula="p(c | x) = p(x | c)·p(c) / Σ p(x | c′)·p(c′)",
    )


def write_claims(context: Context, claims: Sequence[Claim]) -> None:
    """Add the sentences with their outcomes."""
    context.section.table(
        "What is said of generative classifiers, tested",
        ["claim", "outcome", "figures", "statistic and rule"],
        [[claim.sentence, claim.outcome, claim.evidence, f"{claim.statistic}. Holds if: {claim.rule}."] for claim in claims],
        caption=RULE_OF_OUTCOMES,
    )


def write_files(context: Context, study: Study, claims: Sequence[Claim], grid: Grid) -> None:
    """Write `classifiers.json` for programs and `card.md` for people."""
    errors = {
        name: {str(n): one.errors([n])[0].mean(axis=1).tolist() for n in one.num_labels} for name, one in study.models.items()
    }
    detections = [
        {"model": one.model, "score": one.score, "foreign": one.foreign, **asdict(one.value)} for one in study.detections
    ]
    faults = [{"model": model, "set": name, **asdict(share(wrong))} for (model, name), wrong in study.faults.items()]
    values = {
        "error_by_labels_and_seed": errors,
        "pairs": [_pair_json(pair) for pair in study.pairs],
        "curves": {
            name: {"a": one.a, "b": one.b, "c": one.c, "a_interval": one.a_interval} for name, one in study.curves.items()
        },
        "calibration": {
            name: {
                "error": [asdict(found) for found in one.error],
                "log_loss": [asdict(found) for found in one.log_loss],
                "temperatures": one.temperatures,
            }
            for name, one in study.calibration.items()
        },
        "costs": {name: asdict(one) for name, one in study.costs.items()},
        "faults": faults,
        "detections": detections,
        "claims": [asdict(claim) for claim in claims],
    }
    write_json(context.directory / "classifiers.json", values)
    num_test = next(iter(study.faults.values())).shape[1]
    lines = [
        f"---\n{yaml.safe_dump({'license': grid.license, 'tags': ['groundup', 'comparison', 'image-classification']})}---",
        f"# Generative models as classifiers of {grid.name}",
        "",
        f"{len(study.models)} classifiers, {num_test} test images.",
        "",
        *(f"- {claim.sentence}: **{claim.outcome}** ({claim.evidence})" for claim in claims),
        "",
        "Limits: one set of small images and one budget; p(x | c) of integers is a bound (VAE, flow) or an estimate "
        "(flow matching), no exact probability. `classifiers.json` holds the numbers.",
    ]
    write_bytes(context.directory / "card.md", ("\n".join(lines) + "\n").encode())


def _pair_json(pair: Pair) -> dict[str, Any]:
    gaps = {str(n): {**_finite(asdict(gap)), "verdict": pair.verdicts[n]} for n, gap in pair.gaps.items()}
    crossing = None if pair.crossing is None else asdict(pair.crossing)
    return {"generative": pair.first.name, "discriminative": pair.second.name, "gaps": gaps, "crossover": crossing}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}
