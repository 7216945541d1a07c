"""Bits per dimension in metrics and report, of families with and without a network alike."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pipeline.contract import Context
from stages.common.images.family import KINDS, Likelihood
from stages.common.verdicts import t_interval


def mean_interval(bits: Tensor) -> tuple[float, float]:
    """Return the 95 % t interval of the mean of (B,) over other images; one image shows no spread, both ends are its own."""
    values = bits.tolist()
    return t_interval(values) if len(values) > 1 else (values[0], values[0])


def record_bits(context: Context, likelihood: Mapping[str, Likelihood]) -> None:
    """Record the mean of each split."""
    for split, found in likelihood.items():
        context.metric(
            "bits_per_dim",
            float(found.bits.mean()),
            unit="bit/dim",
            higher_is_better=False,
            n=len(found.bits),
            split=split,
            items="images",
            interval=list(mean_interval(found.bits)),
            kind=found.kind,
            headline=split == "test",
        )


def show_bits(context: Context, likelihood: Mapping[str, Likelihood]) -> None:
    """Add a table with a row for each split to the section."""
    rows: list[list[str | int | float | bool | None]] = []
    for split, found in likelihood.items():
        low, high = mean_interval(found.bits)
        kind = KINDS.get(found.kind, found.kind)
        rows.append([split, float(found.bits.mean()), f"[{low:.3f}, {high:.3f}]", len(found.bits), kind])
    context.section.table(
        "Bits per dimension",
        ["split", "bit/dim", "95 % interval", "images", "kind of number"],
        rows,
        caption=f"{likelihood['test'].detail}. Train far below test means learnt by heart.",
    )
