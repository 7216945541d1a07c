"""An engineer's details of one stage as (title, columns, rows): exact values, made once for both renderers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.artifact import Record
from pipeline.report import numbers
from pipeline.report.collect import Facts, Stage

MAX_FILES = 200
PRIVATE = frozenset({"argv", "cwd", "directory", "home", "host", "hostname", "path", "pid", "user"})
"""Facts about the machine that a report, which may be published, leaves out."""


@dataclass(frozen=True)
class Detail:
    """One table of exact values."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def details(stage: Stage) -> list[Detail]:
    """Return the tables of `stage`, empty ones left out."""
    found = [
        Detail(block.title or "Facts", ["key", "value"], flat(block.values)) for block in stage.blocks if isinstance(block, Facts)
    ]
    artifact = stage.node.artifact
    if artifact is not None:
        found = [*_identity(artifact.record), *found, _files(artifact.record)]
    machine = {key: value for key, value in stage.node.machine.items() if key not in PRIVATE}
    found.append(Detail("Machine", ["key", "value"], flat(machine)))
    return [detail for detail in found if detail.rows]


def flat(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Return nested mappings as rows of dotted key and exact value."""
    rows: list[list[str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append([f"{prefix}{key}", numbers.exact(value)])
    return rows


def _identity(record: Record) -> list[Detail]:
    code = record.identity.get("code")
    others = {key: value for key, value in record.identity.items() if key not in {"config", "code", "inputs", "stage"}}
    inputs = [[role, entry.stage, entry.fingerprint] for role, entries in record.inputs.items() for entry in entries]
    metrics = [[str(row.get("name")), numbers.exact(row)] for row in record.metrics]
    artifact = {"fingerprint": record.fingerprint, "stage": record.stage, "kind": record.produces, **others}
    return [
        Detail("Artifact", ["key", "value"], flat(artifact)),
        Detail("Config", ["key", "value"], flat(record.identity.get("config") or {})),
        Detail("Inputs", ["role", "stage", "fingerprint"], inputs),
        Detail("Metrics, exactly", ["name", "value"], metrics),
        Detail("Provenance", ["key", "value"], flat(record.provenance)),
        Detail("Code", ["file", "hash of its syntax tree"], flat(code) if isinstance(code, Mapping) else []),
        Detail("Adoptions", ["key", "value"], [row for one in record.adopted for row in flat(one.model_dump(mode="json"))]),
    ]


def _files(record: Record) -> Detail:
    listed = list(record.files.items())[:MAX_FILES]
    rows = [[name, numbers.size(entry.size), entry.sha256[:12]] for name, entry in listed]
    if left := len(record.files) - len(listed):
        rows.append([f"and {left:,} more, all in record.json", "", ""])
    total = sum(entry.size for entry in record.files.values())
    return Detail(f"Files ({len(record.files):,}, {numbers.size(total)})", ["file", "size", "sha256, first 12"], rows)
