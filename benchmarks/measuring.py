"""What the benchmarks share: both sides in one run, in turn; medians and ranges; rows of a Markdown table.

A ratio is taken within each round, so that a machine that slows down slows both sides of it; shown is the median of the
rounds with the smallest and the largest.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "benchmarks"
"""Where benchmarks keep corpora, tokenizers and runs; ignored by git, may be deleted."""

Side = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One line of the table; every cell is text, `met` says whether the target was reached (None: there is none)."""

    what: str
    ours: str
    other: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None


def alternate(sides: Mapping[str, Side], *, rounds: int) -> dict[str, list[float]]:
    """Call every side once per round, in turn and every other round in reverse, and collect what they return."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(sides[name]())
        print(f"round {number + 1} of {rounds}: {_short(found)}", file=sys.stderr, flush=True)
    return found


def timed(work: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def command_seconds(
    command: Sequence[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None, times: int = 1
) -> float:
    """Return the wall seconds of running `command` `times` times, each time divided out.

    Raises:
        CalledProcessError: it failed; its messages are shown.
    """
    begin = time.perf_counter()
    for _ in range(times):
        done = subprocess.run(command, cwd=cwd, env=os.environ | dict(environment or {}), capture_output=True, check=False)
        if done.returncode:
            sys.stderr.write(done.stdout.decode() + done.stderr.decode())
            done.check_returncode()
    return (time.perf_counter() - begin) / times


def spread(values: Sequence[float], unit: str = "", digits: int = 3) -> str:
    """Return `median [min, max] unit`."""
    text = f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}, {max(values):,.{digits}f}]"
    return f"{text} {unit}".strip()


def ratios(top: Sequence[float], bottom: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [a / b for a, b in zip(top, bottom, strict=True)]


def below(what: str, values: Sequence[float], limit: float, *, unit: str = "s", other: Sequence[float] = ()) -> Row:
    """Return the row of a figure that shall stay below `limit`."""
    met = statistics.median(values) < limit
    return Row(what, spread(values, unit), spread(other, unit) if other else "", "", f"< {limit:g} {unit}", met)


class Table:
    """Prints a section of BENCHMARKS.md: what was measured, on which machine, with which command, and the rows."""

    def __init__(self, title: str, *, packages: Sequence[str], other: str = "other side") -> None:
        self.title, self.packages, self.other = title, packages, other
        self._load_before = os.getloadavg()
        self._begin = time.time()

    def show(self, rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
        """Print the section to standard output."""
        module = Path(sys.argv[0]).stem
        command = shlex.join(["python", "-m", f"benchmarks.{module}", *sys.argv[1:]])
        print(f"\n## {self.title}\n\n`{command}`, {datetime.now(UTC):%Y-%m-%d}, {(time.time() - self._begin) / 60:.1f} min.")
        print(f"{machine()}; {versions(self.packages)}.")
        print(f"Load average {_load(self._load_before)} before, {_load(os.getloadavg())} after.\n")
        print(f"| measured | Groundup | {self.other} | ratio | target | met |\n|---|---|---|---|---|---|")
        for row in rows:
            met = {True: "yes", False: "**no**", None: ""}[row.met]
            print(f"| {row.what} | {row.ours} | {row.other} | {row.ratio} | {row.target} | {met} |")
        for note in notes:
            print(f"\n{note}")


def machine() -> str:
    """Return processor, cores and memory."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    wide = "AVX-512" if any("avx512f" in line for line in lines) else "AVX2" if any("avx2" in line for line in lines) else ""
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {wide}, {gib:.0f} GiB".replace(", ,", ",")


def versions(packages: Sequence[str]) -> str:
    """Return Python and the installed versions of `packages`."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{p} {importlib.metadata.version(p)}" for p in packages)])


def stage_artifact(stage: str, *flags: str, wing: str = "text") -> Path:
    """Run one stage by its own command line and return the directory of its artifact (at once when it is there)."""
    command = [sys.executable, "-m", f"stages.{wing}.{stage}", *flags, "--store", str(BUILD)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return (ROOT / done.stdout.strip().splitlines()[-1]).resolve()


def _load(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.2f} (1 min) {values[1]:.2f} (5 min)"


def _short(found: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {values[-1]:.4g}" for name, values in found.items() if values)
