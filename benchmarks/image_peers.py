"""What the benchmarks of image models against peers share: data, our side, runs that are kept, bursts, verdicts.

    python -m benchmarks.image_peers_vae        pythae's VAE and IWAE
    python -m benchmarks.image_peers_flow       normflows' Glow and zuko's neural spline flow
    python -m benchmarks.image_peers_diffusion  diffusers' loop for unconditional images

Same images (the dataset stage's 8x8 digits), same grid and accounting of bits, one evaluator, about the same parameters
(where not, the table says so), the same training FLOPs counted by one ledger around each side's own forward and backward.
Every peer is tuned on a seed of its own, by the very figure that is reported: its variants at the first learning rate, then
the other rates of the best one. Our side is the stages' defaults, which were tuned on digits, too. Then both sides train on
the seeds that count, and in short bursts in turn for images per CPU second (one thread each; beside other work, wall seconds
would measure that work).

Every run is kept under `build/benchmarks/image_peers` by a hash of the code that it follows from, so a benchmark that was
cut off goes on. Each peer has a virtual environment of its own under `build/` with the torch of ours; `PIP_ARGS` is passed
to pip.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import BUILD, ROOT, Row, alternate, ratios, spread, stage_artifact
from pipeline.artifact import Artifact
from stages.common.images.grid import SPLITS, load_grid, load_split
from stages.common.verdicts import Difference, paired_bootstrap, satterthwaite, t_difference, verdict

FOLDER = BUILD / "image_peers"
TUNING_SEED = 1

OUR_MODULE = "benchmarks.image_our_side"

Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model of one package.

    Attributes:
        name: for the table.
        key: what its process is told to be.
        module: of that process.
        python: its interpreter.
        variants: that are tried, the first is the default.
        rates: learning rates that are tried, the middle one first; none: it is not tuned here.
        trial_share: share of the budget that a trial has.
    """

    name: str
    key: str
    module: str
    python: Path = Path(sys.executable)
    variants: tuple[str, ...] = ("",)
    rates: tuple[float, ...] = ()
    trial_share: float = 1.0


@dataclass(frozen=True)
class Chosen:
    """A side with the variant and the rate that it is run with."""

    side: Side
    variant: str = ""
    rate: float = 0.0
    share: float = 1.0
    """Of the budget."""

    @property
    def label(self) -> str:
        """What was chosen, for people."""
        share = "" if self.share == 1 else f", {self.share:g} of the budget"
        return f"{self.variant} {self.rate:g}{share}".strip()

    def flags(self) -> list[str]:
        """Return what its process is told."""
        return ["--side", self.side.key, "--variant", self.variant, "--rate", str(self.rate)]


def ours(key: str, name: str) -> Side:
    """Return our side: a stage with its defaults."""
    return Side(name=name, key=key, module=OUR_MODULE)


def prepare() -> Path:
    """Make images and extractors by the real stages; return the images as plain arrays, for every side."""
    images = stage_artifact("dataset", "--card", "digits", wing="image")
    extractors = stage_artifact("classifier", "--needs.images", str(images), wing="image")
    FOLDER.mkdir(parents=True, exist_ok=True)
    artifact = Artifact.open(images)
    arrays = {name: load_split(artifact, name).images.numpy() for name in SPLITS}
    np.savez(FOLDER / "digits.npz", **arrays, levels=load_grid(artifact).levels)
    (FOLDER / "facts.json").write_text(json.dumps({"images": str(images), "extractors": str(extractors)}))
    return FOLDER / "digits.npz"


def environment(name: str, *packages: str) -> Path:
    """Create a peer's virtual environment once; return its interpreter."""
    python = ROOT / "build" / name / "bin" / "python"
    complete = ROOT / "build" / name / "complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        torch_version = importlib.metadata.version("torch").partition("+")[0]
        pip = [str(python), "-m", "pip", "install", "--quiet", *shlex.split(os.environ.get("PIP_ARGS", ""))]
        subprocess.run([*pip, f"torch=={torch_version}", "numpy", *packages], check=True)
        complete.touch()
    return python


def environment_note(side: Side, *packages: str) -> str:
    """Return the versions in a peer's environment."""
    code = f"import importlib.metadata as m; print(', '.join(f'{{p}} {{m.version(p)}}' for p in {(*packages, 'torch')!r}))"
    done = subprocess.run([str(side.python), "-c", code], capture_output=True, text=True, check=True)
    return f"Environment of {packages[0]}: {done.stdout.strip()}."


def run(chosen: Chosen, seed: int, budget: float) -> Found:
    """Train and measure one side in a process of its own, or return what was found before."""
    flags = [*chosen.flags(), "--seed", str(seed), "--budget", str(budget * chosen.share)]
    key = hashlib.sha256(f"{_code(chosen.side)} {chosen.side.module} {flags}".encode()).hexdigest()[:16]
    out = FOLDER / "runs" / f"{chosen.side.key}-{key}.json"
    if not out.exists():
        out.parent.mkdir(exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [*_command(chosen.side), *flags, "--out", str(out)]
        with open(out.with_suffix(".log"), "w") as log:
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)
        if done.returncode:
            sys.exit(f"{chosen.side.name} failed:\n{out.with_suffix('.log').read_text()[-4000:]}")
    found: Found = json.loads(out.read_text())
    shown = {key: value for key, value in found.items() if isinstance(value, (int, float))}
    print(f"{chosen.side.name} {' '.join(flags[2:])}: {shown}", file=sys.stderr, flush=True)
    return found | {"path": out}


def tune(side: Side, budget: float, score: Callable[[Found], float]) -> tuple[Chosen, str]:
    """Return variant, rate and share of the budget of the lowest score on the tuning seed, and all trials as text.

    Where a trial has less than the budget, the best is tried with all of it, too, and may stay with less.
    """
    trials: dict[Chosen, float] = {}

    def attempt(chosen: Chosen) -> None:
        trials[chosen] = score(run(chosen, TUNING_SEED, budget))

    def best() -> Chosen:
        return min(trials, key=lambda trial: trials[trial])

    for variant in side.variants:
        attempt(Chosen(side, variant, side.rates[0], side.trial_share))
    variant = best().variant
    for rate in side.rates[1:]:
        attempt(Chosen(side, variant, rate, side.trial_share))
    if side.trial_share < 1:
        attempt(replace(best(), share=1.0))
    shown = "; ".join(f"{trial.label}: {value:.4f}" for trial, value in trials.items())
    return best(), f"Trials of {side.name}: {shown}."


def final_runs(sides: Sequence[Chosen], num_seeds: int, budget: float) -> dict[str, list[Found]]:
    """Train every side on the seeds that count, in turn; name -> what each seed gave."""
    found: dict[str, list[Found]] = {one.side.name: [] for one in sides}
    for seed in range(TUNING_SEED + 1, TUNING_SEED + 1 + num_seeds):
        for one in sides if seed % 2 else reversed(sides):
            found[one.side.name].append(run(one, seed, budget))
    return found


def images_per_second(sides: Sequence[Chosen], rounds: int) -> dict[str, list[float]]:
    """Let all sides train in short bursts, in turn, each in a process that waits between them."""
    with tempfile.TemporaryDirectory() as folder:
        processes = {}
        for one in sides:
            command = [*_command(one.side), *one.flags(), "--bursts", "--out", f"{folder}/none"]
            processes[one.side.name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        try:
            for process in processes.values():
                _answer(process, "ready")
            return alternate({name: lambda p=process: _burst(p) for name, process in processes.items()}, rounds=rounds)
        finally:
            for process in processes.values():
                process.communicate("")


def compare_bits(first: Sequence[Found], second: Sequence[Found]) -> tuple[Difference, str]:
    """Return the difference in bits/dim over images and seeds, and what it says of the first."""
    arrays = (np.array([found["bits"] for found in side]) for side in (first, second))
    return _judged(paired_bootstrap(*arrays, seed=0))


def compare_numbers(first: Sequence[float], second: Sequence[float]) -> tuple[Difference, str]:
    """Return the difference of numbers, one for each seed, where less is better; equal seeds pair nothing (Welch)."""
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    error, degrees = satterthwaite([(float(side.var(ddof=1)) / len(side), len(side) - 1) for side in sides])
    mean = float(sides[0].mean() - sides[1].mean())
    return _judged(t_difference(mean, error, degrees, num_seeds=min(map(len, sides)), method="seeds"))


def cost_rows(mine: Sequence[Found], theirs: Sequence[Found], ours_name: str, name: str) -> list[Row]:
    """Return the rows of what a training costs."""
    pair = f"{ours_name}, {name}"
    return [
        Row(f"parameters: {pair}", *(f"{side[0]['num_parameters']:,}" for side in (mine, theirs))),
        Row(f"counted TFLOP: {pair}", *(f"{side[0]['flops'] / 1e12:.3f}" for side in (mine, theirs))),
        Row(f"images trained on: {pair}", *(f"{side[0]['num_images']:,}" for side in (mine, theirs))),
        Row(f"MFLOP for each image: {pair}", *(f"{_flops_per_image(side) / 1e6:.2f}" for side in (mine, theirs))),
    ]


def speed_rows(
    speeds: Mapping[str, Sequence[float]], mine: Sequence[Found], theirs: Sequence[Found], ours_name: str, name: str
) -> list[Row]:
    """Return the rows of images and of counted GFLOP per CPU second; ratios are taken in each round."""
    rows = []
    for unit, scales, digits in (
        ("images per CPU second", (1.0, 1.0), 0),
        ("GFLOP per CPU second", tuple(_flops_per_image(side) / 1e9 for side in (mine, theirs)), 1),
    ):
        sides = [[speed * scale for speed in speeds[key]] for key, scale in zip((ours_name, name), scales, strict=True)]
        ratio = ratios(*sides)
        target, met = (">= 1", statistics.median(ratio) >= 1) if unit == "images per CPU second" else ("", None)
        shown = (spread(side, unit, digits) for side in sides)
        rows.append(Row(f"training speed: {ours_name}, {name}", *shown, spread(ratio, digits=2), target, met))
    return rows


def quality_row(what: str, mine: Sequence[float], theirs: Sequence[float], judged: tuple[Difference, str]) -> Row:
    """Return the row of a figure where less is better, with the interval of the difference and the verdict as `target`."""
    found, word = judged
    shown = (spread(side, digits=4) for side in (mine, theirs))
    interval = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    return Row(what, *shown, interval, f"clearly better: {word}", word == "clearly better")


def likelihood_rows(
    mine: Chosen, theirs: Sequence[Chosen], found: Mapping[str, Sequence[Found]], speeds: Mapping[str, Sequence[float]], what: str
) -> list[Row]:
    """Return the rows of one side of ours against several of a peer, in bits/dim."""
    rows = []
    own = found[mine.side.name]
    for one in theirs:
        peer, pair = found[one.side.name], f"{mine.side.name}, {one.side.name}"
        numbers = [[run["bits_per_dim"] for run in side] for side in (own, peer)]
        rows.append(quality_row(f"{what}: {pair}", *numbers, compare_bits(own, peer)))
        names = (mine.side.name, one.side.name)
        rows += [*speed_rows(speeds, own, peer, *names), *cost_rows(own, peer, *names)]
    return rows


def options(description: str | None, *, rounds: int = 9) -> Namespace:
    """Return the options of a benchmark; a peer's side has `parser_of`'s."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side that count")
    parser.add_argument("--budget", type=float, default=0.6, help="TFLOP of each training")
    parser.add_argument("--rounds", type=int, default=rounds, help="bursts of each side for the speed")
    return parser.parse_args()


def _flops_per_image(runs: Sequence[Found]) -> float:
    return float(runs[0]["flops"] / runs[0]["num_images"])


def _judged(found: Difference) -> tuple[Difference, str]:
    word = verdict(found, found.p_value, higher_is_better=False)
    return found, "clearly better" if word == "better" else word


def _command(side: Side) -> list[str]:
    return [str(side.python), "-m", side.module, "--data", str(FOLDER / "digits.npz")]


def _answer(process: subprocess.Popen[str], expected: str = "") -> str:
    """Return the next line that is `expected`, or that is a number; packages may print others."""
    assert process.stdout is not None
    for line in process.stdout:
        text = line.strip()
        if text == expected or (not expected and text.replace(".", "", 1).isdigit()):
            return text
    raise RuntimeError(f"{shlex.join(map(str, process.args))} ended before it answered")  # type: ignore[arg-type]


def _burst(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(_answer(process))


def _code(side: Side) -> str:
    """Return a hash of the code that a side's results follow from."""
    files = [ROOT / f"{side.module.replace('.', '/')}.py", ROOT / "benchmarks" / "image_peer_side.py"]
    if side.module == OUR_MODULE:
        files += sorted(p for folder in ("common", "image") for p in (ROOT / "stages" / folder).rglob("*.py"))
    parsed = (ast.dump(ast.parse(path.read_bytes())) for path in files)  # comments and line breaks change nothing
    return hashlib.sha256("".join(parsed).encode()).hexdigest()
