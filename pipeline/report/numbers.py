"""Numbers for people: four significant digits, commas between thousands, units that fit the size."""

from __future__ import annotations

import json
import math
from typing import Any

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")
_SPELT_OUT = {"s": "seconds", "MB/s": "megabytes per second", "MiB": "mib", "GiB": "gib"}
_PREFIXED = ("FLOP", "FLOP/s")


def number(value: float) -> str:
    """Return `value` for people: whole numbers in full, others with four significant digits."""
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "not a number")
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e15:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}".replace("-", "−")
    return text.rstrip("0").rstrip(".") if decimals else text


def seconds(value: float) -> str:
    """Return a duration: `0.41 s`, `12.3 s`, `4 min 12 s`, `3 h 05 min`, `2 d 3 h`."""
    if value < 59.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(value / 3600)
    return f"{hours // 24} d {hours % 24} h"


def size(count: float) -> str:
    """Return a number of bytes with its binary unit: `512 B`, `1.43 MiB`."""
    step = 0
    while count >= 1024 and step < len(_BINARY) - 1:
        count, step = count / 1024, step + 1
    decimals = 0 if step == 0 or count >= 100 else 2 - (count >= 10)
    return f"{count:.{decimals}f} {_BINARY[step]}"


def memory(gib: float) -> str:
    """Return an amount of memory given in GiB, always in GiB, so that the amounts of a page compare."""
    return f"{gib:,.2f} GiB" if gib >= 0.1 else f"{number(gib)} GiB"


def name(key: str, unit: str) -> str:
    """Return the key of a figure in words: `num_parameters` counts parameters, `training_seconds` says its unit twice."""
    text = key.replace("_", " ").removeprefix("num ")
    return text.removesuffix(f" {_SPELT_OUT.get(unit, unit.lower())}")


def unit_for(value: float, unit: str) -> tuple[float, str]:
    """Return what to divide `value` by, and the unit of the quotient: operations get a prefix (`122.8 GFLOP`)."""
    if unit not in _PREFIXED or not math.isfinite(value):
        return 1, unit
    step = 0
    while abs(value) >= 1000 ** (step + 1) and step < len(_DECIMAL) - 1:
        step += 1
    return 1000**step, _DECIMAL[step] + unit


def count(n: int, items: str) -> str:
    """Return `1 epoch`, `1,234 documents`: the word loses its s where there is one."""
    return f"{number(n)} {items.removesuffix('s') if n == 1 else items}".rstrip()


def cell(value: Any) -> str:
    """Return a table cell for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def exact(value: Any) -> str:
    """Return `value` exactly: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
