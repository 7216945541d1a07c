"""The models that are compared: read, checked that they may be compared, and grouped into what differs only by its seed.

Legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from stages.common.images.family import BY_CALLS, PATHS
from stages.common.images.grid import Grid, load_grid

SHARES = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2, "1": 1.0}
"""Sample sets that follow the training: their share of the budget."""
END, RAW = "1", "raw"
VARIANTS = ("architecture", "model", "loss", "num_components", "prediction", "budget_tflop")
"""Settings that name a variant of a family, the most telling first; others are named only where these do not tell apart."""
SOLVER_CHANGE = "likelihood_solver_change"


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One training.

    Attributes:
        artifact: where it lies.
        facts: its `family.json`.
        samples: sample set -> uint8 (N, C, H, W), at most as many as train has images.
        bits: split -> bits per dimension of its first images, float64; empty where the family has no likelihood.
        by_calls: calls of the network for a sample, fewer than usual -> uint8 (N, C, H, W); empty where the number is fixed.
        paths: ways through its latents in T steps, uint8 (P, T+1, C, H, W); None where it kept none.
    """

    artifact: Artifact
    facts: Mapping[str, Any]
    samples: Mapping[str, Tensor]
    bits: Mapping[str, np.ndarray]
    by_calls: Mapping[int, Tensor] = field(default_factory=dict)
    paths: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Contestant:
    """What has a row in the table: one family with its settings, or one way to sample from it.

    Attributes:
        label: for people; unique.
        family: such as `vae`.
        sample_set: which samples are judged; END for those of the model itself.
        runs: by seed.
    """

    label: str
    family: str
    sample_set: str
    runs: Mapping[int, Run]

    @property
    def settings(self) -> dict[str, Any]:
        """Values of the stage's Config, without the seed."""
        return settings_of(next(iter(self.runs.values())).artifact)

    @property
    def is_classic(self) -> bool:
        """True for a density that is fitted without counted FLOPs."""
        return self.budget == 0

    @property
    def is_model(self) -> bool:
        """True for samples of the model itself, false for another way to draw from it."""
        return self.sample_set == END

    @property
    def budget(self) -> float:
        """Counted training FLOPs, mean over the seeds."""
        return self.fact("training_flops")

    @property
    def kind(self) -> str | None:
        """What its bits per dimension are: `exact`, `lower bound`, `numerical`; None: it has none."""
        found = next(iter(self.runs.values())).facts["likelihood"]
        return found["kind"] if found and found["kind"] != "none" and self.is_model else None

    @property
    def solver_error(self) -> float:
        """How far more steps of a solver might move its bits per dimension, of the worst seed; 0 where there is no solver."""
        if self.kind != "numerical":
            return 0.0
        rows = [row for run in self.runs.values() for row in run.artifact.record.metrics if row["name"] == SOLVER_CHANGE]
        return max((abs(end) for row in rows for end in row["interval"]), default=0.0)

    def fact(self, key: str) -> float:
        """Return a figure of `family.json`, mean over the seeds."""
        return float(np.mean([run.facts[key] for run in self.runs.values()]))

    def samples(self, sample_set: str | None = None) -> dict[int, Tensor]:
        """Return the samples of each seed that has such a set; None: the set that is judged."""
        name = sample_set or self.sample_set
        return {seed: run.samples[name] for seed, run in self.runs.items() if name in run.samples}

    def shorter_paths(self) -> dict[int, dict[int, Tensor]]:
        """Return samples drawn with fewer calls, calls -> seed -> uint8 (N, C, H, W), for numbers that every seed has."""
        common = set.intersection(*(set(run.by_calls) for run in self.runs.values()))
        return {calls: {seed: run.by_calls[calls] for seed, run in self.runs.items()} for calls in sorted(common)}


def settings_of(artifact: Artifact) -> dict[str, Any]:
    """Return the values of the Config that made `artifact`, without its seed."""
    return {key: value for key, value in artifact.record.config.items() if key != "seed"}


def load_contestants(images: Artifact, extractors: Artifact, models: Sequence[Artifact]) -> list[Contestant]:
    """Read the models, refuse what cannot be compared, and return one contestant for each row of the table.

    Raises:
        DataError: other images, extractors of other images, different numbers of samples, a model twice, fewer than two.
    """
    grid = load_grid(images)
    _check_images(grid, [extractors, *models])
    groups: dict[str, list[Run]] = {}
    for run in map(_read, models):
        record = run.artifact.record
        key = json.dumps([record.stage, run.facts["family"], settings_of(run.artifact)], sort_keys=True)
        groups.setdefault(key, []).append(run)
    if len(groups) < 2:
        raise DataError(f"needs.models holds {len(groups)} model ({len(models)} trainings); a comparison needs two or more")
    runs = [_by_seed(group) for group in groups.values()]
    _check_sizes(runs)
    labels = _labels([(str(_first(group).facts["family"]), settings_of(_first(group).artifact)) for group in runs])
    found = []
    for label, group in zip(labels, runs, strict=True):
        family = str(_first(group).facts["family"])
        found.append(Contestant(label=label, family=family, sample_set=END, runs=group))
        others = [name for name in _first(group).samples if name not in (*SHARES, RAW)]
        found += [Contestant(label=_plain(f"{label} ({name})"), family=family, sample_set=name, runs=group) for name in others]
    labels = [one.label for one in found]
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise DataError(
            f"two models would both be called '{repeated[0]}'; give their families names that differ in their letters"
        )
    return sorted(found, key=lambda one: one.is_classic)


def matched(first: Contestant, second: Contestant, tolerance: float) -> bool:
    """Return whether a verdict between the two is fair: equal counted budgets, or one of them a classic density without any."""
    largest = max(first.budget, second.budget)
    return min(first.budget, second.budget) == 0 or abs(first.budget - second.budget) <= tolerance * largest


def usual_budget(contestants: Sequence[Contestant]) -> float:
    """Return the median counted budget of what was trained, FLOPs; NaN where nothing was."""
    budgets = [one.budget for one in contestants if not one.is_classic and one.is_model]
    return float(np.median(budgets)) if budgets else math.nan


def _check_images(grid: Grid, others: Sequence[Artifact]) -> None:
    for artifact in others:
        other = load_grid(artifact)
        if (other.shape, other.levels, other.sha256) != (grid.shape, grid.levels, grid.sha256):
            raise DataError(
                f"{artifact.record.name} ({artifact.record.stage}) was made from other images ('{other.name}', "
                f"{other.sizes['train']} to train) than needs.images ('{grid.name}', {grid.sizes['train']} to train): numbers on "
                "different images cannot be compared; make all from one images artifact"
            )


def _read(artifact: Artifact) -> Run:
    # As many samples are held against train images, so where train is smaller, the first ones of every model are judged.
    most = load_grid(artifact).sizes["train"]

    def judged(file: Path) -> dict[str, Tensor]:
        return {name: images[:most] for name, images in load_file(file).items()}

    likelihood = artifact.path / "likelihood.safetensors"
    shorter = artifact.path / BY_CALLS
    bits = load_arrays(likelihood) if likelihood.exists() else {}
    for split, values in bits.items():
        if not np.isfinite(values).all():  # a mean over what is left would flatter the model
            name, num = artifact.record.name, int((~np.isfinite(values)).sum())
            raise DataError(
                f"{name} ({artifact.record.stage}): the likelihood of {num} of {len(values)} {split} images is not finite, so it "
                "has no mean to compare; leave the model out of needs.models, or train it with a smaller learning_rate"
            )
    return Run(
        artifact=artifact,
        facts=json.loads((artifact.path / "family.json").read_text(encoding="utf-8")),
        samples=judged(artifact.path / "samples.safetensors"),
        bits=bits,
        by_calls={int(calls): images for calls, images in judged(shorter).items()} if shorter.exists() else {},
        paths=_paths(artifact),
    )


def _paths(artifact: Artifact) -> Tensor | None:
    path, grid = artifact.path / PATHS, load_grid(artifact)
    if not path.exists():
        return None
    found = load_file(path).get("images", torch.empty(0))
    fits = found.dtype == torch.uint8 and found.shape[2:] == grid.shape and found.shape[1] > 2 and len(found)
    if not fits or int(found.max()) >= grid.levels:
        raise DataError(
            f"{artifact.record.name}: {PATHS} must hold 'images', torch.uint8 (paths, 3 or more) of {grid.shape}, levels below "
            f"{grid.levels}, and holds {found.dtype} {tuple(found.shape)}; run that stage again, or leave the file out"
        )
    return found


def _by_seed(runs: Sequence[Run]) -> dict[int, Run]:
    found: dict[int, Run] = {}
    for run in runs:
        seed = int(run.artifact.record.config["seed"])
        if seed in found:
            name = run.artifact.record.name
            raise DataError(f"needs.models holds {name} with seed {seed} twice; name each training once")
        found[seed] = run
    return dict(sorted(found.items()))


def _check_sizes(groups: Sequence[Mapping[int, Run]]) -> None:
    """Distances between distributions shrink with the number of samples, so all models must give equally many."""
    sizes = [
        (
            f"{run.facts['family']}, seed {seed}",
            sorted({len(images) for images in (*run.samples.values(), *run.by_calls.values())}),
        )
        for group in groups
        for seed, run in group.items()
    ]
    if len({size for _, found in sizes for size in found}) > 1:
        shown = "; ".join(f"{name}: {', '.join(map(str, found))}" for name, found in sizes)
        raise DataError(f"num_samples differs ({shown}); distances depend on it: set one num_samples for all models")


def _first(group: Mapping[int, Run]) -> Run:
    return next(iter(group.values()))


def _labels(groups: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return a label for each (family, settings): the family, and where that is not enough the values that differ.

    Names come from elsewhere, so they are cut to letters that every font has and no format takes for markup.
    """
    labels = []
    for family, settings in groups:
        rivals = [other for name, other in groups if name == family]
        keys = sorted({key for other in rivals for key in other if len({json.dumps(one.get(key)) for one in rivals}) > 1})
        telling = [key for key in VARIANTS if key in keys]
        if len({json.dumps([other.get(key) for key in telling]) for other in rivals}) < len(rivals):
            telling += [key for key in keys if key not in telling]
        named = [str(settings.get(key)) if key in VARIANTS[:3] else f"{key}={settings.get(key)}" for key in telling]
        label = ", ".join([family.replace("_", " "), *named])
        labels.append(_plain(label))
    return labels


def _plain(name: str) -> str:
    return re.sub(r"[^\w ,.=()/-]", "_", name, flags=re.ASCII).lstrip(" ,.=()/-")
