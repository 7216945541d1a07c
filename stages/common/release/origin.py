"""Whether the records in a published repository hang together, and belong to the files beside them.

They are not signed. What is found here: damage, edits by hand, files exchanged after training. Who rewrites every record and
the manifest with it is not found; a commit that was pinned before is what protects from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.artifact import Record, digest
from pipeline.errors import Damaged
from stages.common.release.layout import (
    BASE_ORIGIN,
    DATA_CARDS,
    FIGURES,
    MANIFEST,
    PROVENANCE,
    Manifest,
    PublishedFile,
    load_provenance,
    records_of_base,
)
from stages.common.release.measured import missing_records
from stages.common.release.probe import PROBE, PROBE_IMAGES

_WRITTEN_ANEW = frozenset(
    {"README.md", "metrics.json", "recipe.yaml", "LICENSE", "adapter_config.json", MANIFEST, PROBE, PROBE_IMAGES}
)
"""Files that publishing writes itself, so the artifact may hold another one of that name; an adapter's config names its base."""


def provenance_problems(folder: Path, manifest: Manifest) -> list[str]:
    """Return what is inconsistent about the records under `folder`, one sentence each."""
    try:
        records = load_provenance(folder)
    except Damaged as damage:
        return [str(damage).replace(f"{folder}/", "")]
    problems = [line for record in records.values() for line in _record_problems(record, records)]
    problems += _missing(records, manifest.artifact)
    own = records.get(manifest.artifact)
    if own is None:
        return [f"{PROVENANCE}/ has no record of the artifact {manifest.artifact[:8]} that {MANIFEST} names", *problems]
    for key in ("stage", "produces"):
        said, recorded = getattr(manifest, key), getattr(own, key)
        if said != recorded:
            problems.append(f"{MANIFEST} says {key} {said}, the record of the artifact {recorded}")
    problems += [line for record in records.values() for line in _base_problems(manifest, record)]
    return problems + _file_problems(manifest, own)


def _record_problems(record: Record, records: Mapping[str, Record]) -> list[str]:
    name = _name(record)
    problems = []
    if digest(record.identity) != record.fingerprint:
        problems.append(f"{name}: its fingerprint is not that of the identity it holds")
    if record.identity.get("stage") != record.stage:
        problems.append(f"{name}: its identity is of the stage {record.identity.get('stage')}")
    listed = {role: [entry.fingerprint for entry in entries] for role, entries in record.inputs.items() if entries}
    said = {role: found for role, found in record.identity.get("inputs", {}).items() if found}
    if listed != said:
        problems.append(f"{name}: its list of inputs is not that of its identity")
    for role, entries in record.inputs.items():
        for entry in entries:
            ancestor = records.get(entry.fingerprint)
            if ancestor is not None and ancestor.stage != entry.stage:
                problems.append(f"{name}: its {role} is called {entry.stage}, but is a {ancestor.stage}")
    return problems


def _missing(records: Mapping[str, Record], artifact: str) -> list[str]:
    return [
        f"{_name(records[of])}: the record of its {role} ({stage} {missing[:8]}) is missing"
        for (of, missing), (role, stage) in missing_records(records, artifact).items()
    ]


def _name(record: Record) -> str:
    return f"record {record.stage} {record.fingerprint[:8]}"


def _base_problems(manifest: Manifest, record: Record) -> list[str]:
    """The records of a published base are files of the artifact that was trained on it, so they must be published unchanged."""
    problems = []
    for name in records_of_base(record):
        published = manifest.files.get(name.removeprefix(f"{BASE_ORIGIN}/"))
        if published is None or published.sha256 != record.files[name].sha256:
            state = "missing" if published is None else "not the one that the artifact holds"
            problems.append(f"record {record.stage} {record.fingerprint[:8]}: {name} of its base is {state}")
    return problems


def _file_problems(manifest: Manifest, record: Record) -> list[str]:
    """Compare the published files with those of the artifact; data are published in another form, so there nothing is equal."""
    if manifest.part == "data":
        return []
    problems = []
    for name, entry in manifest.files.items():
        if name in _WRITTEN_ANEW or name.startswith((f"{FIGURES}/", f"{PROVENANCE}/", f"{DATA_CARDS}/")):
            continue
        recorded = record.files.get(f"{manifest.part}/{name}") or record.files.get(name)
        if recorded is not None and PublishedFile(sha256=recorded.sha256, bytes=recorded.size) != entry:
            problems.append(f"{name} is not the file that the artifact's record names")
        if recorded is None and name.endswith(".safetensors"):
            problems.append(f"{name} is in no record: nothing says how these weights were made")
    return problems
