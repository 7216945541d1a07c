"""`groundup report`: the page of a recipe's last run, as HTML and Markdown."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.cli.session import NOTE, read_note
from pipeline.cli.watch import failure_of
from pipeline.durable import write_bytes
from pipeline.errors import Damaged
from pipeline.report import EARLIER, ReportNode, build_report
from pipeline.store import Store


def report(arguments: argparse.Namespace) -> int:
    """Write the report of a recipe's last run and print where it is."""
    store = Store(arguments.store)
    name, _ = read_note(store, arguments.recipe)
    print(write_report(store, name))
    return 0


def write_report(store: Store, recipe: str) -> Path:
    """Write `report.html` and `report.md` under `runs/<recipe>/`; files whose content would not change stay as they are.

    Returns:
        the path of the HTML page.
    """
    folder = store.runs / recipe
    note = json.loads((folder / NOTE).read_bytes())
    nodes = _with_earlier_runs([_node(store, name, values) for name, values in note["nodes"].items()])
    html, markdown = build_report(recipe, nodes, recipe_text=note["recipe_text"], command=note["command"])
    for name, text in (("report.html", html), ("report.md", markdown)):
        content = text.encode()
        if not (folder / name).exists() or (folder / name).read_bytes() != content:
            write_bytes(folder / name, content)
    return folder / "report.html"


def _node(store: Store, name: str, values: dict[str, Any]) -> ReportNode:
    place = store.place(values["stage"], values["fingerprint"])
    try:
        artifact = Artifact.open(place.final)
        store.check(artifact)
    except Damaged as damage:
        told = [str(damage)] if place.final.exists() else [failure] if (failure := failure_of(place.partial)) else []
        return ReportNode(name=name, needs=values["needs"], status="failed" if told else "missing", causes=told)
    return ReportNode(
        name=name,
        needs=values["needs"],
        status="adopted" if artifact.record.adopted else "done",
        artifact=artifact,
        machine=_machine(place.final),
    )


_EARLIER = "Of an earlier run: it was made from what is not shown here, or is of an earlier run itself"


def _with_earlier_runs(nodes: list[ReportNode]) -> list[ReportNode]:
    """Mark what was made from other inputs than those shown: after `run --only` the last artifacts may not belong together."""
    shown = {node.name: node for node in nodes}
    found: dict[str, str] = {}

    def told(name: str) -> str:
        """Return why a node is of an earlier run; nothing if it is not."""
        if name not in found:
            node = shown[name]
            upstream = [shown[one] for one in node.needs if one in shown]
            known = set[str]().union(*map(_fingerprints, upstream))
            read = [entry for ones in node.artifact.record.inputs.values() for entry in ones] if node.artifact else []
            others = [f"{entry.stage} {entry.fingerprint[:8]}" for entry in read if entry.fingerprint not in known]
            others += [one.name for one in upstream if node.artifact and told(one.name)]
            found[name] = f"{_EARLIER} ({', '.join(others)}). `groundup run` without --only makes it anew." if others else ""
        return found[name]

    return [replace(node, status=EARLIER, notes=[*node.notes, told(node.name)]) if told(node.name) else node for node in nodes]


def _fingerprints(node: ReportNode) -> set[str]:
    """Return the names under which what a node made may stand in the record of what was made from it."""
    if node.artifact is None:
        return set()
    return {node.artifact.fingerprint, *(adoption.fingerprint for adoption in node.artifact.record.adopted)}


def _machine(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((path / "machine.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return facts
