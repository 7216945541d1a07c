"""What the comparison shows: its section, `table.csv`, `comparison.json` and the card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml

from pipeline.contract import Context, write_bytes, write_json
from stages.common.claims import RULE_OF_OUTCOMES, Claim
from stages.common.verdicts import LEAST_SEEDS, Estimate, Sampled, estimate
from stages.common.wording import short
from stages.image.compare import tables
from stages.image.compare.collapse import RULE
from stages.image.compare.config import Published
from stages.image.compare.contrasts import Pool, smallest_difference
from stages.image.compare.models import usual_budget
from stages.image.compare.page import PAGE
from stages.image.compare.pairs import Pair, bits_pool, classic_pairs, compare_bits, compare_pairs, trained_pairs
from stages.image.compare.paths import write_paths
from stages.image.compare.references import write_references
from stages.image.compare.study import COSTS, Study

PAIR_COLUMNS = ["first", "second", "first − second", "95 % interval", "p (Holm)", "verdict", "stands on"]


def open_section(context: Context, study: Study) -> None:
    """Say what the stage is about, how to read its figures, and show the first table."""
    families = study.families()
    context.section.describe(
        title="Families side by side" if len(families) > 1 else f"Settings of one family side by side: {families[0]}",
        idea="Every family learned from the same images with the same amount of computing, and what it draws is held against "
        "real images that none of them saw. No single number decides: an image may be sharp and copied, a model may predict "
        "pixels well and draw badly, so quality, variety, memory, likelihood and cost stand beside each other.",
        formula="distance = (FD(samples) − FD(train images)) / (FD(independent pixels) − FD(train images))",
    )
    context.section.text(how_to_read(study))
    context.section.table(
        "The comparison",
        tables.columns_of(tables.SUMMARY),
        tables.rows_of(study, tables.SUMMARY),
        caption=f"{_intervals()} A ratio to real images should be 1. What the bits are (exact, a bound, a solver's number) "
        "stands beside them; a lower bound on the probability makes the bits an upper bound.",
    )


def how_to_read(study: Study) -> str:
    """Return a paragraph for a learner."""
    anchors, budget = study.anchors, usual_budget(study.contestants)
    trained = "" if math.isnan(budget) else f"The budget is {short(budget / 1e12)} TFLOP of counted training operations. "
    return (
        f"{trained}A Fréchet distance (FD) says how differently two sets of images are spread out in the features of a network "
        f"({anchors.extractor}); {anchors.num_samples} samples of each model are held against {anchors.num_reference} "
        f"{study.split} images, not against those of train, which a copy would win. Real training images have "
        f"{short(anchors.floor)}, images of independently drawn pixels {short(anchors.ceiling)}: on the scale of the table these "
        f"are 0 and 1. Models whose counted budget differs by more than {100 * study.tolerance:g} % are shown as not matched and "
        "get no verdict; classic densities (mixtures, independent pixels) are fitted without gradient steps, have no budget, and "
        "stand there as yardsticks."
    )


def write_tables(context: Context, study: Study) -> list[Pair]:
    """Add the other tables; return all pairs that were compared."""
    section = context.section
    section.table(
        "Quality and variety",
        tables.columns_of(tables.QUALITY),
        tables.rows_of(study, tables.QUALITY),
        caption=f"{_intervals()} Precision and density: do samples look real. Recall and coverage: is everything real among "
        "them. Vendi: how many different images a set is worth. TV: share of samples that would have to change their class. "
        "Laplacian and fine detail below 1: blurred; far above 1: noise, not sharpness. Intervals of ratios to real images "
        "allow for other real images too (bootstrap).",
    )
    section.table(
        "Signs of collapse",
        [*tables.columns_of(tables.VARIETY), "signs"],
        tables.collapse_rows(study),
        caption=f"{RULE} Classes missing: real classes that no sample has. Largest class probability: how sure the classifier is "
        "of a sample, on average. A sign is shown by a single training, whatever the mean.",
    )
    section.table(
        "Memory and likelihood",
        tables.columns_of(tables.MEMORY),
        tables.rows_of(study, tables.MEMORY),
        caption="A copy of the training set would have perfect distances. What gives it away: samples that lie nearer to the "
        "training images than unseen real images do (ratio below 1), and training images that are far more probable than those.",
    )
    write_references(context, study)
    write_paths(context, study)
    section.table(
        "What it cost",
        tables.columns_of(COSTS),
        tables.rows_of(study, COSTS),
        caption="Only the counted operations are matched; all else is measured beside. Seconds are of the training steps on the "
        "machine of this run; parameters for training only are those of a discriminator.",
    )
    pairs = _write_pairs(context, study)
    if study.raw:
        section.table(
            "Averaged weights or the last ones",
            ["model", "FD, averaged weights", "FD, last weights"],
            tables.raw_rows(study),
            caption=f"{_intervals()} All other figures are of the averaged weights after the last step; no checkpoint was "
            "chosen.",
        )
    _write_agreement(context, study)
    return pairs


def write_published(context: Context, name: str, published: Sequence[Published]) -> None:
    """Add what others published, marked as theirs, beside figures on the images called `name`."""
    if published:
        context.section.table(
            "Published figures, not measured here",
            ["model", "images", "bit/dim", "FID (Inception, 50,000 samples, train)", "source"],
            [[one.model, one.images, one.bits_per_dim, one.inception_fd, one.source] for one in published],
            caption="Printed as their authors gave them, with far more computing, on their own test images. Bits per dimension "
            f"may be held beside ours only where ours are of these images, too (here: {name}), and even then the test images "
            "are not the same ones; an FID is measured by another network against other images and may not.",
        )


def write_claims(context: Context, claims: Sequence[Claim]) -> None:
    """Add the course's sentences with their outcome; none where there is one family only."""
    if not claims:
        return
    context.section.table(
        "What is said of the families, tested",
        ["claim", "outcome", "figures", "statistic and rule"],
        [[claim.sentence, claim.outcome, claim.evidence, f"{claim.statistic}. Holds if: {claim.rule}."] for claim in claims],
        caption=RULE_OF_OUTCOMES,
    )


def write_files(context: Context, study: Study, pairs: Sequence[Pair], claims: Sequence[Claim]) -> None:
    """Write `table.csv` for people and `comparison.json` for programs: every number, pair, curve and claim."""
    write_bytes(context.directory / "table.csv", tables.table_csv(study).encode())
    write_json(
        context.directory / "comparison.json",
        {
            "anchors": asdict(study.anchors),
            "modes": None if study.modes is None else asdict(study.modes),
            "numbers": {label: _numbers_json(found) for label, found in study.numbers.items()},
            "frechet_distance_at_share": {label: _numbers_json(found) for label, found in study.anytime.items()},
            "frechet_distance_by_calls": {label: _numbers_json(found) for label, found in study.by_calls.items()},
            "frechet_distance_of_last_weights": _numbers_json(study.raw),
            "frechet_distance_by_space": study.distances,
            "kendall_tau": [[*spaces, _json(tau)] for spaces, tau in study.agreement.items()],
            "pairs": [_pair_json(pair) for pair in pairs],
            "claims": [asdict(claim) for claim in claims],
        },
    )


def write_card(context: Context, study: Study, claims: Sequence[Claim]) -> None:
    """Write `card.md`: what was compared, the first table, the claims, the limits."""
    grid, anchors = study.grid, study.anchors
    head, rows = tables.columns_of(tables.SUMMARY), tables.rows_of(study, tables.SUMMARY)
    lines = [
        f"---\n{yaml.safe_dump({'license': grid.license, 'tags': ['groundup', 'comparison', 'image-generation']})}---",
        "# Families of image models side by side",
        "",
        f"{len([one for one in study.contestants if one.is_model])} models of {grid.sizes['train']:,} images "
        f"({grid.height}x{grid.width}, {grid.channels} channel(s), {grid.levels} levels).",
        how_to_read(study),
        "",
        _markdown(head),
        _markdown(["---"] * len(head)),
        *(_markdown(["" if cell is None else str(cell) for cell in row]) for row in rows),
        "",
        _intervals(),
        "",
        *(f"- {claim.sentence}: **{claim.outcome}** ({claim.evidence})" for claim in claims),
        "",
        f"Limits: one set of images, {anchors.num_reference} {study.split} images, features of small networks trained on these "
        f"images, one budget. `table.csv` and `comparison.json` hold every number; `{PAGE}` shows the samples and needs nothing "
        "else.",
    ]
    write_bytes(context.directory / "card.md", ("\n".join(lines) + "\n").encode())


def _write_pairs(context: Context, study: Study) -> list[Pair]:
    trained, classic = trained_pairs(study), classic_pairs(study)
    distances, bits = study.pool("fd"), bits_pool(study)
    groups = {
        "Trained families, Fréchet distance": (compare_pairs(study, "fd", trained), distances),
        "Trained families, bits per dimension": (compare_bits(study, trained), bits),
        "Trained families, divergence from equal modes": (
            compare_pairs(study, "mode_divergence", trained) if study.modes else [],
            study.pool("mode_divergence") if study.modes else None,
        ),
        "Trained families against classic densities, Fréchet distance": (compare_pairs(study, "fd", classic), distances),
        "Trained families against classic densities, bits per dimension": (compare_bits(study, classic), bits),
    }
    for title, (pairs, pool) in groups.items():
        if pairs:
            context.section.table(
                title,
                PAIR_COLUMNS,
                tables.pair_rows(pairs),
                caption="Below 0 the first is better. Bits are compared on the same images. A verdict needs an interval without "
                f"0 and p < 0.05 after Holm's correction over the {len(pairs)} pairs of this table; otherwise the two are not "
                f"separable, which does not mean equal. {smallest(pairs, pool)}",
            )
    return [pair for pairs, _ in groups.values() for pair in pairs]


def smallest(pairs: Sequence[Pair], pool: Pool | None) -> str:
    """Return a sentence on the smallest difference that the seeds of a table could tell apart; what is known of it otherwise."""
    counts = [pair.found.num_seeds for pair in pairs if pair.found is not None]
    if pool is None or not counts or min(counts) < LEAST_SEEDS:
        return "Each pair is judged by its own spread."
    least = smallest_difference(pool, min(counts), len(counts))
    return (
        f"The spread from seed to seed is pooled over the {pool.num_families} trained families ({pool.degrees} degrees of "
        f"freedom); with {min(counts)} seeds each, the largest difference of the table must be above {short(least)} to be told "
        "apart. A pair that varies clearly more than the pool keeps its own spread (Welch) and needs more."
    )


def _write_agreement(context: Context, study: Study) -> None:
    context.section.table(
        "Does the order depend on who looks?",
        ["model", *study.distances],
        tables.rank_rows(study),
        caption="Rank by Fréchet distance, mean over trainings, in the features of each extractor and in the leading components "
        "of the pixels.",
    )
    context.section.table(
        "Agreement of the orders",
        ["space", "space", "Kendall's τ"],
        tables.agreement_rows(study),
        caption=f"1: the same order, 0: unrelated, −1: reversed; over {len(study.contestants)} rows, {_of_orders(study)}. "
        "Where it is low, a ranking is the extractor's opinion.",
    )


def _of_orders(study: Study) -> str:
    counts = {tau.num_seeds for tau in study.agreement.values() if tau.method == "seeds"}
    if not counts:
        return f"of the mean distances; with fewer than {LEAST_SEEDS} trainings of each model it has no interval"
    return (
        f"the mean over the orders of {max(counts)} trainings of each model, not of the mean distances, with its 95 % t interval "
        "(none where all agree)"
    )


def _intervals() -> str:
    return (
        f"Mean over seeds. ± is half a 95 % t interval over at least {LEAST_SEEDS} seeds, ~ half a 95 % interval over other "
        "draws of samples (of bits: over other images), which says nothing of another training; ± of bits allows for other "
        "images of the split as well. "
        "★: better than every other model by the verdicts of the pairs, corrected for their number."
    )


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _numbers_json(found: Mapping[Any, Sampled]) -> dict[Any, dict[str, Any]]:
    return {key: _json(estimate(number)) | {"by_seed": number.values} for key, number in found.items()}


def _json(found: Estimate) -> dict[str, Any]:
    values = asdict(found)
    return values | {key: None for key in ("mean", "low", "high") if math.isnan(values[key])}


def _pair_json(pair: Pair) -> dict[str, Any]:
    facts = {
        "column": pair.key,
        "first": pair.first.label,
        "second": pair.second.label,
        "outcome": pair.outcome,
        "note": pair.note,
    }
    return facts if pair.found is None else facts | _json(pair.found) | {"p_holm": pair.p_value}
