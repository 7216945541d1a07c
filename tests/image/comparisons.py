"""Models to compare, made without training: artifacts as the families write them, and studies whose numbers are given.

Legend: N images, C = 1 channel, H height, W width, S seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.artifact import Artifact, Record
from pipeline.contract import write_json
from stages.common.images.config import ImageModelConfig
from stages.common.images.extractor import ExtractorNetwork
from stages.common.images.family import BY_CALLS, PATHS
from stages.common.images.features import EXTRACTORS, ExtractorFacts, save_extractor
from stages.common.images.grid import GRID, Grid, load_grid, load_split
from stages.common.verdicts import Sampled
from stages.image.compare.models import Contestant, Run
from stages.image.compare.study import Anchors, Study
from tests.harness import commit, make_context

GRID_4X4 = Grid(
    name="bars",
    license="cc-by-4.0",
    levels=4,
    channels=1,
    height=4,
    width=4,
    classes=("row", "column"),
    sizes={"train": 64, "validation": 32, "test": 32},
    sha256={"train": "a", "validation": "b", "test": "c"},
)
TFLOP = 10**12


class ModelConfig(ImageModelConfig):
    """Stands for the config of a family."""

    architecture: str = "small"
    num_components: int = 1


def facts_of(family: str, *, flops: float = TFLOP, kind: str | None = "lower bound", **changed: Any) -> dict[str, Any]:
    """Return what `family.json` holds."""
    facts = {
        "family": family,
        "parameters": 1000,
        "extra_parameters": 0,
        "training_flops": flops,
        "num_steps": 100,
        "wall_seconds": 10.0,
        "cpu_seconds": 11.0,
        "peak_memory_gib": 0.5,
        "latency_ms_per_image": 1.0,
        "num_function_evaluations": 1,
        "likelihood": None if kind is None else {"kind": kind, "detail": "by hand"},
    }
    return facts | changed


def model_artifact(
    root: Path,
    images: Artifact,
    samples: Mapping[str, Tensor],
    *,
    family: str = "toy",
    stage: str = "stages.image.toy",
    bits: float | None = 2.0,
    events: Sequence[Mapping[str, float]] = (),
    facts: Mapping[str, Any] | None = None,
    by_calls: Mapping[int, Tensor] | None = None,
    paths: Tensor | None = None,
    **values: Any,
) -> Artifact:
    """Write an artifact of kind `image_model`; `bits` is the mean of its bits per dimension, None for no likelihood.

    `samples`: set -> uint8 (N, C, H, W). `values`: of the Config, among them the seed. `events`: logged at steps 1, 2, ...
    """
    config = ModelConfig(**values)
    context = make_context(root, {"images": images})
    (root / GRID).write_bytes((images.path / GRID).read_bytes())
    save_file({name: value.contiguous() for name, value in samples.items()}, root / "samples.safetensors")
    if by_calls:
        save_file({str(calls): value.contiguous() for calls, value in by_calls.items()}, root / BY_CALLS)
    if paths is not None:
        save_file({"images": paths.contiguous()}, root / PATHS)
    generator = torch.Generator().manual_seed(config.seed)
    spread = torch.rand(16, generator=generator, dtype=torch.float64) * 0.2 - 0.1
    found = {} if bits is None else {split: (bits + spread).clone() for split in ("train", "validation", "test")}
    save_file(found, root / "likelihood.safetensors")
    kind = None if bits is None else "lower bound"
    (root / "family.json").write_text(json.dumps(facts_of(family, kind=kind) | dict(facts or {})))
    for step, row in enumerate(events, 1):
        context.log(step, **row)
    return commit(stage, config, context)


def make_extractors(root: Path, images: Artifact, kinds: Sequence[str] = ("supervised", "rotation")) -> Artifact:
    """Return extractors of the bars, or of stacks of them, without training: random features are enough to see noise."""
    channels, context = load_grid(images).channels, make_context(root, {"images": images})
    entries = []
    for seed, kind in enumerate(kinds):
        torch.manual_seed(seed)
        outputs = {"supervised": 2, "rotation": 4, "random": 0}[kind]
        network = ExtractorNetwork(
            channels=channels, height=4, width=4, levels=4, num_outputs=outputs, num_features=6, first_width=8
        )
        sha256 = save_extractor(root / f"{kind}-0", network, load_split(images, "train").images)
        entries.append(
            ExtractorFacts(
                name=f"{kind}-0", kind=kind, seed=seed, num_features=6, num_outputs=outputs, test_accuracy=None, sha256=sha256
            )
        )
    write_json(root / EXTRACTORS, [asdict(entry) for entry in entries])
    (root / GRID).write_bytes((images.path / GRID).read_bytes())
    return commit("stages.image.classifier", ModelConfig(), context)


def contestant(
    label: str,
    family: str,
    *,
    seeds: int = 3,
    sample_set: str = "1",
    bits: np.ndarray | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    samples: Mapping[str, Tensor] | None = None,
    path: Path = Path("nowhere"),
    **facts: Any,
) -> Contestant:
    """Return a model whose artifact lies at `path`; `bits` are (S, N) of the test images, `metrics` what its stage measured."""
    record = Record(
        name=label,
        stage=f"stages.image.{family}",
        produces="image_model",
        fingerprint=label,
        identity={"config": {}},
        inputs={},
        files={},
        metrics=[dict(row) for row in metrics],
        provenance={},
    )
    values = facts_of(family, **facts)
    runs = {
        seed: Run(
            artifact=Artifact(path, record),
            facts=values,
            samples=samples or {},
            bits={} if bits is None else {"test": bits[seed], "train": bits[seed]},
        )
        for seed in range(seeds)
    }
    return Contestant(label=label, family=family, sample_set=sample_set, runs=runs)


def number(*values: float, deviation: float = math.nan) -> Sampled:
    """Return a number with its values of seeds 0, 1, ... and one deviation over samples."""
    return Sampled(dict(enumerate(values)), dict.fromkeys(range(len(values)), deviation))


def study(numbers: Mapping[Contestant, Mapping[str, Sampled]]) -> Study:
    """Return a study with the numbers of each model by the key of a column."""
    return Study(
        grid=GRID_4X4,
        contestants=list(numbers),
        anchors=Anchors(
            floor=0.5,
            ceiling=10.0,
            num_samples=100,
            num_reference=50,
            extractor="supervised-0",
            train_floor=0.4,
            num_train_floor=50,
            train_copy=0.1,
            num_train=200,
        ),
        numbers={one.label: dict(found) for one, found in numbers.items()},
        anytime={},
        raw={},
        distances={},
        agreement={},
        split="test",
        tolerance=0.05,
        num_resamples=200,
        seed=0,
    )
