"""The tables of the comparison, as rows for the report; every figure carries its interval."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

import numpy as np

from stages.common.images.family import KINDS
from stages.common.verdicts import estimate
from stages.common.wording import on_what, plus_minus, short
from stages.image.compare.collapse import signs_of
from stages.image.compare.models import Contestant
from stages.image.compare.pairs import Pair, best
from stages.image.compare.study import COLUMNS, Study

Row = list[str | int | float | bool | None]

SUMMARY = ("fd_ratio", "coverage", "hf_ratio", "bits_per_dim", "parameters", "cpu_seconds", "latency_ms_per_image")
QUALITY = ("fd", "kid", "precision", "recall", "density", "coverage", "vendi_ratio", "class_tv", "laplacian_ratio", "hf_ratio")
VARIETY = ("class_tv", "missing_classes", "class_confidence", "vendi_ratio", "precision", "recall")
MEMORY = ("nn_ratio", "memorised_share", "duplicate_share", "bits_per_dim", "bits_gap")
REAL = "real train images"
STAR = "★\u00a0"


def columns_of(keys: Sequence[str]) -> list[str]:
    """Return the head of a table of models."""
    return ["model", *(COLUMNS[key].title for key in keys)]


def rows_of(study: Study, keys: Sequence[str]) -> list[Row]:
    """Return a row for each model: mean and interval, a star at the one that is better than every other.

    Where some of it can be said of real train images, as many as there are samples, they have the last row.
    """
    stars = {key: best(study, key) for key in keys}
    rows: list[Row] = [[name_of(study, one), *(cell(study, one, key, stars[key]) for key in keys)] for one in study.contestants]
    if not study.real.keys().isdisjoint(keys):
        rows.append(_of_real(study, keys))
    return rows


def name_of(study: Study, one: Contestant) -> str:
    """Return the label, marked where the budget is another one than that of the most."""
    return one.label if study.is_matched(one) else f"{one.label} (budget not matched)"


def raw_rows(study: Study) -> list[Row]:
    """Return for each trained model its distance with averaged and with the last weights."""
    rows: list[Row] = []
    for label, raw in study.raw.items():
        averaged = study.estimate(label, "fd")
        assert averaged is not None
        rows.append([label, plus_minus(averaged), plus_minus(estimate(raw))])
    return rows


def collapse_rows(study: Study) -> list[Row]:
    """Return a row for each model: what a collapse would show in, and the signs of one."""
    rows: list[Row] = []
    for one in study.contestants:
        cells = [cell(study, one, key) for key in VARIETY]
        rows.append([name_of(study, one), *cells, "; ".join(signs_of(study, one)) or "none"])
    if study.real:
        rows.append([*_of_real(study, VARIETY), "none"])
    return rows


def pair_rows(pairs: Sequence[Pair]) -> list[Row]:
    """Return a row for each pair: difference, interval, corrected p value, verdict and what must be known of it."""
    rows: list[Row] = []
    for pair in pairs:
        if pair.found is None:
            rows.append([pair.first.label, pair.second.label, None, None, None, "no verdict", pair.note])
            continue
        found = pair.found
        interval = f"[{short(found.low)}, {short(found.high)}]"
        words = f"over {on_what(found)}" + (f"; {pair.note}" if pair.note else "")
        outcome = pair.outcome if pair.outcome == "not separable" else f"first is {pair.outcome}"
        rows.append([pair.first.label, pair.second.label, short(found.mean), interval, _p(pair.p_value), outcome, words])
    return rows


def rank_rows(study: Study) -> list[Row]:
    """Return the rank of each model by Fréchet distance in each space, 1 the nearest to real images."""
    ranks = {
        space: {label: 1 + sum(other < value for other in found.values()) for label, value in found.items()}
        for space, found in study.distances.items()
    }
    return [[one.label, *(ranks[space][one.label] for space in ranks)] for one in study.contestants]


def agreement_rows(study: Study) -> list[Row]:
    """Return Kendall's tau for each pair of spaces; None where a space puts all models at one place."""
    return [[*pair, None if math.isnan(tau.mean) else plus_minus(tau)] for pair, tau in study.agreement.items()]


def table_csv(study: Study) -> str:
    """Return every number of every model as CSV, one row for each: mean, interval, what it stands on, and the seeds' values."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "number", "unit", "mean", "low", "high", "num_seeds", "method", "values"])
    for one in study.contestants:
        for key, number in study.numbers[one.label].items():
            found = estimate(number)
            values = " ".join(repr(value) for value in number.values.values())
            ends = ["" if np.isnan(end) else end for end in (found.low, found.high)]
            writer.writerow([one.label, key, COLUMNS[key].unit, found.mean, *ends, found.num_seeds, found.method, values])
    return stream.getvalue()


def _of_real(study: Study, keys: Sequence[str]) -> Row:
    return [REAL, *(short(study.real[key]) if key in study.real else None for key in keys)]


def cell(study: Study, one: Contestant, key: str, star: str | None = None) -> str | None:
    """Return a number of a model in words, starred if `star` is its label; None where it has no such number."""
    found = study.estimate(one.label, key)
    if found is None:
        return None
    text = f"{found.mean:,.0f}" if COLUMNS[key].is_count else plus_minus(found)
    if key == "bits_per_dim":
        text = f"{text}, {KINDS.get(one.kind or '', one.kind)}"
    return STAR + text if one.label == star else text


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
