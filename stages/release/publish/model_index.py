"""Every evaluation as the Hub's `model-index` wants it.

Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md, parsed by huggingface_hub's `EvalResult`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult

from pipeline.artifact import Artifact
from stages.common.release.measured import own_entry, rows_about
from stages.release.publish.lineage import DATA_KINDS, Lineage
from stages.release.publish.sources import Data, describe

_ROLES = ("corpus", "images")
_OLD = "old_domain"
"""Metrics of fine-tuning with this in their name were measured on the input `old_corpus`."""
_OF_A_MEAN = ("of", "seeds", "interval", "interval_over")
"""What a row says of a mean over trainings, and what therefore does not hold for one of them."""
_CONTEXT = ("label", "seed", "extractor", "num_labels", "interval_over")
"""Facts of a row without which its value cannot be compared with others."""


@dataclass(frozen=True)
class Measurement:
    """One figure of the artifact, with what it was measured on.

    Attributes:
        artifact: that measured it.
        row: of its metrics.
        data: that it was measured on; None for sizes and speeds.
    """

    artifact: Artifact
    row: dict[str, Any]
    data: Data | None

    @property
    def mean_over(self) -> int:
        """Trainings that the value is a mean over: 1 for the artifact alone."""
        return len(self.row.get("of", [1]))

    @property
    def title(self) -> str:
        """Name for people; a mean over several trainings says so."""
        name = str(self.row.get("title") or str(self.row["name"]).replace("_", " "))
        labelled = f"{self.row['label']}: {name}" if self.row.get("label") else name
        return labelled if self.mean_over == 1 else f"{labelled}, mean over {self.mean_over} seeds"


def measurements(lineage: Lineage) -> list[Measurement]:
    """Return all that the artifact's stage and its evaluations measured of the artifact, in their order; nothing of rivals."""
    known: dict[str, Data] = {}
    names = lineage.names
    found = []
    for artifact in (lineage.artifact, *lineage.evaluations):
        for row in _rows(artifact, lineage.artifact.fingerprint):
            measured_on = _measured_on(lineage, artifact, str(row["name"]))
            if measured_on is not None:
                known.setdefault(measured_on.fingerprint, describe(measured_on, names[measured_on.fingerprint]))
            found.append(Measurement(artifact, row, known[measured_on.fingerprint] if measured_on else None))
    return found


def _rows(artifact: Artifact, fingerprint: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a record that tell of one artifact: its own value first, then the mean over it and other seeds."""
    for row in rows_about(artifact.record, fingerprint):
        if not row.get("of"):
            yield row
            continue
        alone = {key: value for key, value in own_entry(row, fingerprint).items() if key != "artifact"}
        yield {key: value for key, value in row.items() if key not in _OF_A_MEAN} | alone
        if len(row["of"]) > 1:
            yield row


def _measured_on(lineage: Lineage, artifact: Artifact, metric: str) -> Artifact | None:
    if artifact.record.produces in DATA_KINDS:
        return artifact
    roles = ("old_corpus",) if _OLD in metric else _ROLES
    return next((one for role in roles for one in lineage.inputs(artifact, role)), None)


def eval_results(found: list[Measurement], task: str) -> list[EvalResult]:
    """Return an entry for each measurement on a split of data, its own or a mean that says so; sizes and speeds are none."""
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
        if one.mean_over > 1:
            facts["mean_over_seeds"] = one.mean_over
        facts |= {key: row[key] for key in _CONTEXT if key in row}
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
