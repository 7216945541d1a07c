"""Numbers with their intervals, in words."""

from __future__ import annotations

import math

from stages.common.plots import readable
from stages.common.verdicts import Estimate


def short(value: float) -> str:
    """Return three significant digits: `0.0321`, `12.4`, `1,730`."""
    if value == 0 or not math.isfinite(value):
        return readable(value)
    decimals = 2 - math.floor(math.log10(abs(value)))
    return readable(round(value, decimals))


def counted(number: int, noun: str) -> str:
    """Return `1 seed`, `2 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def with_interval(found: Estimate) -> str:
    """Return `0.57 [0.52, 0.62]`, or the mean alone where no interval is known; a line may break before the bracket only."""
    if found.method == "none":
        return f"{short(found.mean)} (no interval)"
    return f"{short(found.mean)} [{short(found.low)},\u00a0{short(found.high)}]"


def share_of(num: int, found: Estimate) -> str:
    """Return a share of `num` with its interval; none of them says no more than Clopper and Pearson's bound (1934, 95 %)."""
    return with_interval(found) if found.high > 0 else f"none of {num:,} (below {short(1 - 0.025 ** (1 / num))})"


def plus_minus(found: Estimate) -> str:
    """Return `0.57 ± 0.05`, to two digits of the interval and four of the mean; `~` where samples alone were varied."""
    # The longer arm: the other may have been cut where the number has its limit.
    reach = 0.0 if found.method == "none" else max(found.high - found.mean, found.mean - found.low)
    if reach == 0:
        return short(found.mean)
    decimals = 1 - math.floor(math.log10(reach))
    if found.mean:
        decimals = min(decimals, 3 - math.floor(math.log10(abs(found.mean))))
    decimals = min(max(decimals, 0), 6)
    sign = "±" if found.method == "seeds" else "~"
    # Blanks that do not break: a table keeps mean and interval on one line.
    return f"{found.mean:,.{decimals}f}\u00a0{sign}\u00a0{reach:,.{decimals}f}".replace("-", "−")


def on_what(found: Estimate) -> str:
    """Return what the interval stands on: `3 seeds`, `the samples of 1 seed`."""
    seeds = f"{found.num_seeds} seed{'s' if found.num_seeds != 1 else ''}"
    words = {"samples": f"the samples of {seeds}", "images": f"images, {seeds}", "none": f"{seeds}, no spread known"}
    words["pooled seeds"] = f"{seeds}, spread pooled over families"
    return words.get(found.method, seeds if found.method == "seeds" else f"images and {seeds}")
