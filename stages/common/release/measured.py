"""Whom the rows of a record tell of, and which records may therefore stay at home.

A stage that measures several artifacts names in each row, under `of`, those that the figure is a mean over, with what each
gave alone (see `Context.metric`). A model is published with the figures that are its own; whoever was measured beside it, its
rivals, is neither shown nor published with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.artifact import Record

EVALUATION = "evaluation"
"""Kind of an artifact whose rows all tell of its one input `model`."""


def subjects(record: Record) -> set[str]:
    """Return the fingerprints that the rows of `record` name."""
    return {name for row in record.metrics for name in _names(row)}


def rows_about(record: Record, fingerprint: str) -> list[dict[str, Any]]:
    """Return the rows of `record`, in their order, that tell of the artifact with `fingerprint`.

    Those of its own record, those that name it, and all of an evaluation whose model it is. A row counts only if the artifact
    is an input of the record; a name alone proves nothing.
    """
    if record.fingerprint == fingerprint:
        return [row for row in record.metrics if not _names(row)]
    inputs = {role: {entry.fingerprint for entry in entries} for role, entries in record.inputs.items()}
    if not any(fingerprint in found for found in inputs.values()):
        return []
    is_its_model = record.produces == EVALUATION and fingerprint in inputs.get("model", ())
    named = [(row, _names(row)) for row in record.metrics]
    return [row for row, names in named if fingerprint in names or (is_its_model and not names)]


def own_entry(row: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Return what the artifact with `fingerprint` alone gave to a row that names it."""
    return next(entry for entry in row["of"] if entry.get("artifact") == fingerprint)


def missing_records(records: Mapping[str, Record], fingerprint: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return what is missing: (fingerprint of a record, of its input) -> (role, stage).

    Everything that the artifact with `fingerprint` was made from must be there, and so must be what a figure was measured on
    and with. The rivals of a comparison need not: nothing of them is in the artifact, and no figure that is shown is theirs;
    that they took part, and who they were, the record of the comparison says.
    """
    own = made_of(records, fingerprint)
    return {
        (record.fingerprint, entry.fingerprint): (role, entry.stage)
        for record in records.values()
        for role, entries in record.inputs.items()
        for entry in entries
        if entry.fingerprint not in records
        and (record.fingerprint in own or entry.fingerprint in own or entry.fingerprint not in subjects(record))
    }


def made_of(records: Mapping[str, Record], fingerprint: str) -> set[str]:
    """Return the fingerprints of the artifact and of all that went into it, whether their records are there or not."""
    found: set[str] = set()
    pending = [fingerprint]
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            entries = records[one].inputs.values() if one in records else ()
            pending += [entry.fingerprint for some in entries for entry in some]
    return found


def _names(row: Mapping[str, Any]) -> set[str]:
    """Records may come from elsewhere, so what a row says may be anything."""
    found = row.get("of")
    entries = found if isinstance(found, list) else []
    return {str(entry["artifact"]) for entry in entries if isinstance(entry, dict) and "artifact" in entry}
