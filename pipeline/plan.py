"""What a run would do, and exactly why.

For each node: `cached` (there is an artifact of this very fingerprint), `adopted` (the user kept one that differs in code
only), `resume` (a killed attempt left its state), `run` (with the field, the input or the file that changed).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.artifact import CHECKPOINTS, RECORD, Adoption, Artifact, Record, digest
from pipeline.errors import Damaged, RecipeError
from pipeline.fingerprint import Identity, fingerprint_of, identity_of
from pipeline.graph import Node
from pipeline.store import Store

State = Literal["cached", "adopted", "resume", "run"]


@dataclass(frozen=True)
class Planned:
    """One node with its identity and what is to be done about it."""

    node: Node
    identity: Identity
    fingerprint: str
    state: State
    causes: list[str] = field(default_factory=list)
    artifact: Artifact | None = None


Plan = dict[str, Planned]


def make_plan(
    nodes: dict[str, Node],
    store: Store,
    recipe: str,
    *,
    offline: bool = False,
    keep: Iterable[str] = (),
    force: Iterable[str] = (),
) -> Plan:
    """Decide for every node of `nodes` (in order) what a run would do; changes nothing but remembered hashes.

    Args:
        nodes: from `build_graph`.
        store: where artifacts lie.
        recipe: name of the recipe, whose last run is compared with.
        offline: forbids asking the Hub for a commit.
        keep: nodes whose newest artifact is adopted if it differs in code only.
        force: nodes that run again in any case.

    Raises:
        InputError: a source cannot be read, or nothing can be kept.
    """
    plan: Plan = {}
    keep, force = set(keep), set(force)
    for name, node in nodes.items():
        inputs = {role: [plan[upstream].fingerprint for upstream in group] for role, group in node.needs.items()}
        identity = identity_of(node, inputs, store.hashes, offline=offline)
        planned = _decide(node, identity, store, recipe, forced=name in force)
        if name in keep and planned.state in ("run", "resume"):
            planned = _adopt(planned, store)
        plan[name] = planned
    store.hashes.save()
    return plan


def differences(before: Identity, after: Identity) -> list[str]:
    """Return what changed between two identities, one sentence each: field, input, source, file of code."""
    causes = [f"{key}: {before[key]} -> {after[key]}" for key in ("stage", "semantics") if before.get(key) != after[key]]
    old, new = before.get("config", {}), after["config"]
    causes += [f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in _changed(old, new)]
    old, new = before.get("inputs", {}), after["inputs"]
    causes += [f"input {role}: {_digits(old.get(role))} -> {_digits(new.get(role))}" for role in _changed(old, new)]
    causes += _source_differences(before.get("sources", []), after["sources"])
    old, new = before.get("code", {}), after["code"]
    causes += [f"code: {path} {_verb(path, old, new)}" for path in _changed(old, new)]
    return causes


def _decide(node: Node, identity: Identity, store: Store, recipe: str, *, forced: bool) -> Planned:
    fingerprint = fingerprint_of(identity)
    damaged: list[str] = []
    try:
        artifact = store.find(node.stage, fingerprint)
    except Damaged as error:
        artifact, damaged = None, [f"damaged: {error}"]
    if artifact and not forced:
        return Planned(node, identity, fingerprint, "cached", artifact=artifact)
    if not forced and (adopted := _adopted(node.stage, fingerprint, store)):
        return Planned(node, identity, adopted.fingerprint, "adopted", _adoption_note(adopted), adopted)
    if saved := saved_state(store.place(node.stage, fingerprint).partial):
        return Planned(node, identity, fingerprint, "resume", [*damaged, saved])
    causes = ["forced"] if forced else damaged or _causes(node, identity, store, recipe)
    return Planned(node, identity, fingerprint, "run", causes)


def _causes(node: Node, identity: Identity, store: Store, recipe: str) -> list[str]:
    """Compare with the last run of this recipe, or with the artifact of this stage that differs least."""
    try:
        candidates = [Record.load(store.runs / recipe / node.name)]
    except Damaged:
        candidates = store.records(node.stage)
    if not candidates:
        return ["never run"]
    if gone := [record for record in candidates if record.fingerprint == fingerprint_of(identity)]:
        return [f"its artifact {gone[0].fingerprint[:8]} is gone"]
    return min((differences(record.identity, identity) for record in candidates), key=len)


def saved_state(partial: Path) -> str | None:
    """Return what a killed attempt left to go on from, in words; None when there is nothing."""
    if (partial / RECORD).exists():
        return "finished, not yet committed"
    try:
        names = sorted(name for name in os.listdir(partial / CHECKPOINTS) if not name.startswith("."))
    except FileNotFoundError:  # also when another run commits it at this moment
        return None
    return f"{names[-1]} was saved" if names else None


def _adopted(stage: str, fingerprint: str, store: Store) -> Artifact | None:
    """Return the artifact that was kept in place of `fingerprint`, if it is still whole."""
    kept = store.kept(stage).get(fingerprint)
    try:
        return store.find(stage, kept) if kept else None
    except Damaged:
        return None


def _adopt(planned: Planned, store: Store) -> Planned:
    """Plan to keep the newest artifact that differs from `planned` in code only; `record_adoption` writes it down."""
    node = planned.node
    for record in store.records(node.stage):
        if record.identity | {"code": None} == planned.identity | {"code": None}:
            artifact = store.find(node.stage, record.fingerprint)
            assert artifact is not None
            notes = _adoption_note(artifact) + differences(record.identity, planned.identity)
            return Planned(node, planned.identity, record.fingerprint, "adopted", notes, artifact)
    nearest_differences = "; ".join(planned.causes)
    raise RecipeError(f"--keep {node.name}: no artifact of it differs in code only ({nearest_differences}); run it instead")


def record_adoption(planned: Planned) -> None:
    """Write into the record that the artifact stands for a newer state of the code; once for each state."""
    assert planned.artifact is not None
    record = planned.artifact.record
    wanted = fingerprint_of(planned.identity)
    if any(adoption.fingerprint == wanted for adoption in record.adopted):
        return
    adoption = Adoption(
        fingerprint=wanted,
        code_before=digest(record.identity["code"]),
        code_after=digest(planned.identity["code"]),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    record.model_copy(update={"adopted": [*record.adopted, adoption]}).save(planned.artifact.path)


def _adoption_note(artifact: Artifact) -> list[str]:
    return [f"keeps {artifact.fingerprint[:8]}, made by earlier code"]


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]


def _verb(path: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    if path not in before:
        return "was added"
    return "was removed" if path not in after else "was changed"


def _source_differences(before: list[Any], after: list[Any]) -> list[str]:
    if before == after:
        return []
    causes = []
    for old, new in zip(before, after, strict=False):
        if old != new and isinstance(old, dict) and isinstance(new, dict):
            causes += [_source_cause(key, old.get(key), new.get(key)) for key in _changed(old, new)]
    return causes or ["source: another list of sources"]


def _source_cause(key: str, before: Any, after: Any) -> str:
    if key == "files":
        return f"source: the content of the files changed ({len(before or [])} -> {len(after or [])} files)"
    if key == "card" and isinstance(before, dict) and isinstance(after, dict):
        return f"source: card {after['name']}, {', '.join(_changed(before, after))} changed"
    return f"source {key}: {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _digits(fingerprints: list[str] | None) -> str:
    return "+".join(fingerprint[:8] for fingerprint in fingerprints or []) or "none"
