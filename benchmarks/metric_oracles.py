"""Our metrics of image sets against torchmetrics and prdc: `python -m benchmarks.metric_oracles [--write]`.

Both sides compute on the same random features, drawn from a seed: Frechet and kernel distance by torchmetrics' public classes
(the extractor is the identity), precision, recall, density and coverage by prdc. The tests compare with the stored numbers
of the other side, `tests/golden/metric_oracles.json`; `--write` stores them anew.

The oracles get a virtual environment of their own, `build/oracles`, with the torch of ours and without torchvision and
torch-fidelity, which they need for nothing here; `PIP_ARGS` is passed to pip.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / "build" / "oracles"
GOLDEN = ROOT / "tests" / "golden" / "metric_oracles.json"
TOLERANCE = 1e-6

CASES: list[dict[str, Any]] = [
    {"name": "alike, equal n", "seed": 1, "num_samples": 400, "num_references": 400, "num_features": 64},
    {"name": "shifted and narrower", "seed": 2, "num_samples": 300, "num_references": 300, "num_features": 32},
    {"name": "unequal n", "seed": 3, "num_samples": 500, "num_references": 280, "num_features": 16},
    {"name": "nearly singular", "seed": 4, "num_samples": 300, "num_references": 300, "num_features": 24},
]
"""Sets of features; torchmetrics' kernel distance takes equal n only and is left out where n differs."""


def features_of(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return samples [n, features] and references [m, features], float64, with correlated features."""
    generator = np.random.default_rng(case["seed"])
    width = case["num_features"]
    mixing = generator.normal(size=(width, width)) / np.sqrt(width)
    if case["name"] == "nearly singular":
        mixing[:, width // 2 :] *= 1e-4
    references = generator.normal(size=(case["num_references"], width)) @ mixing.T
    samples = generator.normal(size=(case["num_samples"], width)) @ mixing.T
    if case["name"] == "shifted and narrower":
        samples = 0.6 * samples + 0.3
    return samples, references


def main() -> None:
    """Measure both sides and print, or be the oracles' side inside their environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the oracles' numbers for the tests")
    parser.add_argument("--python", type=Path, help="interpreter that has torchmetrics and prdc; default: build/oracles")
    parser.add_argument("--side", action="store_true", help="the oracles' side (used by the script itself)")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(_their_side()))
        return
    command = [str(arguments.python or _environment()), str(Path(__file__).resolve()), "--side"]
    theirs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    if arguments.write:
        GOLDEN.write_text(json.dumps(theirs, indent=1) + "\n", encoding="utf-8")
    _show(theirs)


def _show(theirs: dict[str, Any]) -> None:
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    print("## Metrics of image sets against their oracles\n")
    print(", ".join(f"{name} {version}" for name, version in theirs["versions"].items()) + ".\n")
    print("| features | metric | Groundup | oracle | difference | oracle, stored |\n|---|---|---|---|---|---|")
    worst = 0.0
    for case, found, kept in zip(CASES, theirs["cases"], stored["cases"], strict=True):
        ours = our_numbers(case)
        for metric, value in found["values"].items():
            before, difference = kept["values"][metric], abs(ours[metric] - value)
            worst = max(worst, difference, abs(before - value))
            print(f"| {case['name']} | {metric} | {ours[metric]:.10g} | {value:.10g} | {difference:.1e} | {before:.10g} |")
    print(f"\nLargest difference {worst:.1e}; allowed are {TOLERANCE:g}.")
    if not worst <= TOLERANCE:
        sys.exit(1)


def our_numbers(case: dict[str, Any]) -> dict[str, float]:
    """Return our figures of a case, by name."""
    from stages.common.metric_modules import load_metric
    from stages.common.metrics import frechet_distance, kernel_distance, precision_recall

    samples, references = features_of(case)
    found: dict[str, float] = {}
    for module in (frechet_distance, kernel_distance, precision_recall):
        found |= load_metric(module).compute(predictions=samples, references=references)
    return found


def _environment() -> Path:
    """Create the oracles' virtual environment once; return its interpreter."""
    python = VENV / "bin" / "python"
    if not (VENV / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", *shlex.split(os.environ.get("PIP_ARGS", ""))]
        torch_version = importlib.metadata.version("torch").partition("+")[0]
        needed = [f"torch=={torch_version}", "numpy", "packaging", "scikit-learn"]
        subprocess.run([*pip, *needed], check=True)
        subprocess.run([*pip, "--no-deps", "torchmetrics", "lightning-utilities", "prdc"], check=True)
        (VENV / "complete").touch()
    return python


def _their_side() -> dict[str, Any]:
    names = ("torchmetrics", "prdc", "torch", "numpy")
    cases = [{**case, "values": _their_numbers(case)} for case in CASES]
    return {"versions": {name: importlib.metadata.version(name) for name in names}, "cases": cases}


def _their_numbers(case: dict[str, Any]) -> dict[str, float]:
    import torch
    from prdc import compute_prdc
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    samples, references = features_of(case)
    identity = torch.nn.Identity()
    identity.num_features = case["num_features"]
    frechet = FrechetInceptionDistance(feature=identity).set_dtype(torch.float64)
    # One subset of all rows: the estimator itself, whatever order they are drawn in.
    kernel = KernelInceptionDistance(feature=identity, subsets=1, subset_size=min(len(samples), len(references)))
    for metric in (frechet, kernel):
        metric.update(torch.from_numpy(references), real=True)
        metric.update(torch.from_numpy(samples), real=False)
    values = {"frechet_distance": float(frechet.compute())}
    if len(samples) == len(references):
        values["kernel_distance"] = float(kernel.compute()[0])
    with contextlib.redirect_stdout(sys.stderr):
        found = compute_prdc(real_features=references, fake_features=samples, nearest_k=5)
    return values | {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    main()
