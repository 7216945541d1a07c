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
_KINDS = {"lower bound": "from a lower bound on the likelihood", "numerical": "by a solver, not exact", "exact": "exact"}
"""What bits per dimension are, by the `kind` of their row: figures of two kinds cannot be compared blindly."""
_CONTEXT = ("higher_is_better", "kind", "mean_over_seeds", "label", "seed", "extractor", "num_labels", "interval_over")
"""Facts of a row without which its value cannot be compared with others."""


@dataclass(frozen=True)
class Measurement:
    """One figure of the artifact, with what it was measured on.

    Attributes:
        artifact: that measured it.
        row: of its metrics, with the value of the published artifact alone.
        data: that it was measured on; None for sizes and speeds.
        label: of what it is, where one stage measured several ways to use the artifact; else empty.
        mean: the row of the mean over trainings with the same settings and different seeds; None where it was measured alone.
    """

    artifact: Artifact
    row: dict[str, Any]
    data: Data | None
    label: str = ""
    mean: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """Name for people."""
        name = str(self.row.get("title") or str(self.row["name"]).replace("_", " ").removeprefix("num "))
        named = f"{self.label}: {name}" if self.label else name
        if self.is_yardstick:
            return f"{named} (a yardstick, not this model)"
        return f"{named} ({_KINDS[self.row['kind']]})" if self.row.get("kind") in _KINDS else named

    @property
    def is_yardstick(self) -> bool:
        """True for a figure of something else that the artifact is held against, such as the base before fine-tuning."""
        return bool(self.row.get("yardstick"))

    @property
    def mean_over(self) -> int:
        """Trainings that the mean is over; 0 without one."""
        return len(self.mean["of"]) if self.mean else 0


def measurements(lineage: Lineage) -> list[Measurement]:
    """Return all that the artifact's stage and its evaluations measured of the artifact, in their order; nothing of rivals."""
    known: dict[str, Data] = {}
    names, own = lineage.names, lineage.artifact.fingerprint
    found = []
    for artifact in (lineage.artifact, *lineage.evaluations):
        rows = rows_about(artifact.record, own)
        several = len({row.get("label") for row in rows}) > 1
        for row in rows:
            measured_on = _measured_on(lineage, artifact, str(row["name"]))
            if measured_on is not None:
                known.setdefault(measured_on.fingerprint, describe(measured_on, names[measured_on.fingerprint]))
            data = known[measured_on.fingerprint] if measured_on else None
            label = str(row.get("label") or "") if several else ""
            mean = row if len(row.get("of", [])) > 1 else None
            found.append(Measurement(artifact, _alone(row, own), data, label, mean))
    return found


def _alone(row: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return a row with the value of one artifact, where it names several."""
    if not row.get("of"):
        return row
    of_all = {key: value for key, value in row.items() if key not in _OF_A_MEAN}
    return of_all | {key: value for key, value in own_entry(row, fingerprint).items() if key != "artifact"}


def _measured_on(lineage: Lineage, artifact: Artifact, metric: str) -> Artifact | None:
    if artifact.record.produces in DATA_KINDS:
        return artifact
    roles = ("old_corpus",) if _OLD in metric else _ROLES
    return next((one for role in roles for one in lineage.inputs(artifact, role)), None)


def eval_results(found: list[Measurement], task: str) -> list[EvalResult]:
    """Return an entry for each measurement on a split of data, its own or a mean that says so.

    Sizes and speeds are none, and neither are yardsticks: who reads the index by program takes each entry for the model's.
    """
    return list(_entries(found, task))


def _entries(found: list[Measurement], task: str) -> Iterator[EvalResult]:
    for one in found:
        if one.data is not None and one.row.get("split") and not one.is_yardstick:
            yield _entry(one, one.data, one.row, one.title, task)
            if one.mean:
                title = f"{one.title}, mean over {one.mean_over} seeds"
                yield _entry(one, one.data, one.mean | {"mean_over_seeds": one.mean_over}, title, task)


def _entry(one: Measurement, data: Data, row: dict[str, Any], title: str, task: str) -> EvalResult:
    repo = next(iter(data.hub), None)
    items = str(row.get("items", "rows"))
    facts = {"unit": row["unit"], "n": row["n"], "items": items, "stage": one.artifact.record.stage}
    if row.get("interval"):
        facts["interval_95"] = [float(end) for end in row["interval"]]
    facts |= {key: row[key] for key in _CONTEXT if row.get(key) is not None}
    unit = "" if row["unit"] == "1" else f"{row['unit']}, "
    return EvalResult(
        task_type=task,
        dataset_type=repo or data.name,
        dataset_name=data.title,
        dataset_split=str(row["split"]),
        dataset_revision=data.hub.get(repo) if repo else None,
        dataset_args={"groundup_artifact": data.artifact.fingerprint},
        metric_type=str(row["name"]),
        metric_value=row["value"],
        metric_name=f"{title} ({unit}n = {row['n']} {items})",
        metric_args=facts,
    )
