"""`groundup report`: the page of a recipe's last run, as HTML and Markdown."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.cli.session import NOTE, read_note
from pipeline.cli.watch import failure_of
from pipeline.durable import write_bytes
from pipeline.errors import Damaged
from pipeline.report import ReportNode, build_report
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
    nodes = [_node(store, name, values) for name, values in note["nodes"].items()]
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


def _machine(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((path / "machine.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return facts
