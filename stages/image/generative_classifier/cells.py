"""One training of one classifier: what it says of every named image; read from artifacts and checked to be comparable.

Legend: N images, K classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from stages.common.images.class_scores import SETS, ClassScores, load_scores
from stages.common.images.class_stage import estimator_noise
from stages.common.images.grid import load_grid
from stages.common.images.image_sets import TEST, VALIDATION
from stages.image.generative_classifier.bayes import bayes

Side = Literal["generative", "discriminative"]
RIVAL = "cnn"
_NOT_SETTINGS = ("seed", "num_labels", "class_sets", "num_class_images")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a classifier says of one set.

    Attributes:
        log_posterior: ln P(c | x), float64 (N, K).
        log_evidence: ln P(x), float64 (N,); None for one that has none.
        labels: int64 (N,), -1 for foreign images.
        role: `test`, `validation`, `corrupted` or `foreign`.
        sha256: of the images.
    """

    log_posterior: np.ndarray
    log_evidence: np.ndarray | None
    labels: np.ndarray
    role: str
    sha256: str

    @property
    def wrong(self) -> np.ndarray:
        """1.0 where the likeliest class is not the true one, float64 (N,)."""
        return np.asarray(self.log_posterior.argmax(axis=1) != self.labels, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training.

    Attributes:
        model: name, the same for all numbers of labels and seeds.
        side: how it comes to a class.
        num_labels: labelled images of each class.
        seed: of the choice of images and of the training.
        sets: name -> what it says.
        latency_ms: wall milliseconds of one answer, all images at once.
        settings: that define the network, apart from seed and labels; empty for a classical one.
        training_flops: counted; None where none are counted.
        flops_for_one_image: of one answer; None where none are counted.
        parameters: of the network; None for a classical one.
        noise: standard deviation of its log odds by the estimator's draws, nats; 0 where nothing is drawn.
        kind: of its likelihood, or `discriminative`.
        artifact: fingerprint of the training; None for what was fitted here.
        detail: how its likelihood is computed.
    """

    model: str
    side: Side
    num_labels: int
    seed: int
    sets: Mapping[str, Judged]
    latency_ms: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    training_flops: float | None = None
    flops_for_one_image: float | None = None
    parameters: int | None = None
    noise: float = 0.0
    kind: str = "exact"
    artifact: str | None = None
    detail: str = ""


def load_cells(images: Artifact, models: Sequence[Artifact], rivals: Sequence[Artifact], *, split: str) -> list[Cell]:
    """Read the trained classifiers.

    Args:
        images: that all learned from.
        models, rivals: generative and discriminative ones.
        split: on which they are judged.

    Raises:
        DataError: a model without classes, one of other images, or one that was not asked about `split`.
    """
    grid = load_grid(images)
    cells: list[Cell] = []
    for artifact in (*models, *rivals):
        record = artifact.record
        if not (artifact.path / SETS).exists():
            raise DataError(
                f"needs.models: {record.name} ({record.stage}) has no densities of classes; set class_conditional: true in it"
            )
        inputs = {entry.fingerprint for entry in record.inputs["images"]}
        if inputs != {images.fingerprint}:
            raise DataError(
                f"{record.name} ({record.stage}) learned from other images than needs.images ('{grid.name}'): classifiers of "
                "different images cannot be compared; make all from one images artifact"
            )
        cells.append(_cell(artifact, split))
    check_same_sets(cells)
    return cells


def check_one_setting(cells: Sequence[Cell]) -> None:
    """Refuse two settings under one name: a comparison is of one setting of each model, with one training at each place.

    Raises:
        DataError: names the model.
    """
    settings: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        if settings.setdefault(cell.model, cell.settings) != cell.settings:
            raise DataError(
                f"two trainings of '{cell.model}' differ in more than seed and num_labels; compare one setting at a time (many "
                "at once are for split: validation)"
            )
    check_unique(cells)


def check_same_sets(cells: Sequence[Cell]) -> None:
    """Refuse classifiers that were asked about different images.

    Raises:
        DataError: two sets of one name differ.
    """
    seen: dict[str, tuple[str, str]] = {}
    for cell in cells:
        for name, judged in cell.sets.items():
            model, sha256 = seen.setdefault(name, (cell.model, judged.sha256))
            if sha256 != judged.sha256:
                raise DataError(
                    f"{model} and {cell.model} were asked about different images under the name '{name}': set one "
                    "num_class_images and the same foreign images for all"
                )


def check_budgets(cells: Sequence[Cell], tolerance: float) -> None:
    """Refuse a generative model whose counted training differs from its rival's.

    Raises:
        DataError: names the two.
    """
    budgets = {(cell.num_labels, cell.seed): cell.training_flops for cell in cells if cell.model == RIVAL}
    for cell in cells:
        rival = budgets.get((cell.num_labels, cell.seed))
        if cell.training_flops and rival and abs(cell.training_flops - rival) > tolerance * max(cell.training_flops, rival):
            raise DataError(
                f"{cell.model} took {cell.training_flops / 1e12:.3g} TFLOP and {RIVAL} {rival / 1e12:.3g} (num_labels "
                f"{cell.num_labels}, seed {cell.seed}): set one budget_tflop for both, or a larger budget_tolerance"
            )


def check_seeds(cells: Sequence[Cell]) -> None:
    """Refuse trainings that cannot be paired: every model has the same seeds at each of its numbers of labels.

    Raises:
        DataError: names the model that lacks one.
    """
    found: dict[tuple[str, int], set[int]] = {}
    for cell in cells:
        found.setdefault((cell.model, cell.num_labels), set()).add(cell.seed)
    everyone = {cell.seed for cell in cells}
    for (model, labels), seeds in found.items():
        if seeds != everyone:
            raise DataError(
                f"{model} with {labels} labels of each class has seeds {sorted(seeds)}, others have {sorted(everyone)}: paired "
                "comparisons need the same seeds everywhere"
            )


def _cell(artifact: Artifact, split: str) -> Cell:
    facts, scores = load_scores(artifact.path)
    if split not in scores:
        raise DataError(
            f"{artifact.record.name} ({artifact.record.stage}) was not asked about {split} images; set class_sets: "
            f"{split} in it, or judge it on split: {' or '.join(name for name in (TEST, VALIDATION) if name in scores)}"
        )
    counts = np.asarray(facts["train_counts"], dtype=np.float64)
    is_generative = facts["kind"] != "discriminative"
    sets = {name: _judged(found, counts / counts.sum(), is_generative=is_generative) for name, found in scores.items()}
    halves, config = scores[split].halves, artifact.record.config
    return Cell(
        model=_name(facts, config),
        side="generative" if is_generative else "discriminative",
        num_labels=round(float(counts.mean())),
        seed=int(config["seed"]),
        sets=sets,
        latency_ms=float(facts["latency_ms_for_one_image"]),
        settings={key: value for key, value in config.items() if key not in _NOT_SETTINGS},
        training_flops=float(_fact(artifact, facts, "training_flops")),
        flops_for_one_image=facts["flops_for_one_image"],
        parameters=int(_fact(artifact, facts, "parameters")),
        noise=0.0 if halves is None else estimator_noise(halves)[0],
        kind=facts["kind"],
        artifact=artifact.fingerprint,
        detail=facts["detail"],
    )


def _name(facts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the family, and which of its architectures where it has several that differ in kind."""
    return f"{config['architecture']} flow" if facts["name"] == "flow" else str(facts["name"]).replace("_", " ")


def _judged(found: ClassScores, prior: np.ndarray, *, is_generative: bool) -> Judged:
    posterior, evidence = found.values, None
    if is_generative:
        posterior, evidence = bayes(-found.values * math.log(2), prior)
    return Judged(log_posterior=posterior, log_evidence=evidence, labels=found.labels, role=found.role, sha256=found.sha256)


def _fact(artifact: Artifact, facts: Mapping[str, Any], key: str) -> Any:
    """Return what the sets say, or else the family."""
    return facts[key] if key in facts else json.loads((artifact.path / "family.json").read_text(encoding="utf-8"))[key]


def check_unique(cells: Sequence[Cell]) -> None:
    """Refuse a training that is there twice.

    Raises:
        DataError: names it.
    """
    seen = set()
    for cell in cells:
        key = (cell.model, json.dumps(cell.settings, sort_keys=True), cell.num_labels, cell.seed)
        if key in seen:
            raise DataError(f"{cell.model} with {cell.num_labels} labels of each class and seed {cell.seed} is named twice")
        seen.add(key)
