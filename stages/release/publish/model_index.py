"""Every evaluation as the Hub's `model-index` wants it.

Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md, parsed by huggingface_hub's `EvalResult`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult

from pipeline.artifact import Artifact
from stages.release.publish.lineage import DATA_KINDS, Lineage
from stages.release.publish.sources import Data, describe

_ROLES = ("corpus", "images")
_OLD = "old_domain"
"""Metrics of fine-tuning with this in their name were measured on the input `old_corpus`."""


@dataclass(frozen=True)
class Measurement:
    """One row of a stage's metrics, with what it was measured on."""

    artifact: Artifact
    row: dict[str, Any]
    data: Data | None

    @property
    def title(self) -> str:
        """Name for people."""
        return str(self.row.get("title") or str(self.row["name"]).replace("_", " "))


def measurements(lineage: Lineage) -> list[Measurement]:
    """Return all that the artifact's stage and its evaluations measured, in their order."""
    known: dict[str, Data] = {}
    names = lineage.names
    found = []
    for artifact in (lineage.artifact, *lineage.evaluations):
        for row in artifact.record.metrics:
            measured_on = _measured_on(lineage, artifact, str(row["name"]))
            if measured_on is not None:
                known.setdefault(measured_on.fingerprint, describe(measured_on, names[measured_on.fingerprint]))
            found.append(Measurement(artifact, row, known[measured_on.fingerprint] if measured_on else None))
    return found


def _measured_on(lineage: Lineage, artifact: Artifact, metric: str) -> Artifact | None:
    if artifact.record.produces in DATA_KINDS:
        return artifact
    roles = ("old_corpus",) if _OLD in metric else _ROLES
    return next((one for role in roles for one in lineage.inputs(artifact, role)), None)


def eval_results(found: list[Measurement], task: str) -> list[EvalResult]:
    """Return an entry for each measurement on a split of data; sizes and speeds are none."""
    return list(_entries(found, task))


def _entries(found: list[Measurement], task: str) -> Iterator[EvalResult]:
    for one in found:
        row, data = one.row, one.data
        if data is None or not row.get("split"):
            continue
        repo = next(iter(data.hub), None)
        facts = {"unit": row["unit"], "n": row["n"], "items": row.get("items", "rows"), "stage": one.artifact.record.stage}
        if row.get("interval"):
            facts["interval_95"] = [float(end) for end in row["interval"]]
        if row.get("higher_is_better") is not None:
            facts["higher_is_better"] = row["higher_is_better"]
        yield EvalResult(
            task_type=task,
            dataset_type=repo or data.name,
            dataset_name=data.title,
            dataset_split=str(row["split"]),
            dataset_revision=data.hub.get(repo) if repo else None,
            dataset_args={"groundup_artifact": data.artifact.fingerprint},
            metric_type=str(row["name"]),
            metric_value=row["value"],
            metric_name=f"{one.title} ({row['unit']}, n = {row['n']})",
            metric_args=facts,
        )
