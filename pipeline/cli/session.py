"""What commands share: a recipe opened as nodes and a plan, and the note of each run (`runs/<recipe>/run.json`)."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.durable import write_json
from pipeline.errors import InputError, RecipeError, nearest
from pipeline.graph import Node, add_working_directory, ancestors, build_graph, select
from pipeline.plan import Plan, make_plan
from pipeline.process import process_id
from pipeline.recipe import Recipe, load_recipe
from pipeline.store import Store

NOTE = "run.json"


@dataclass(frozen=True)
class Session:
    """A recipe with its nodes and its plan on one store."""

    recipe: Recipe
    nodes: dict[str, Node]
    plan: Plan
    store: Store
    forced: set[str]


def open_session(
    path: Path, store: Path, overrides: list[str], *, only: str | None, keep: list[str], force: list[str], offline: bool
) -> Session:
    """Read a recipe and plan it.

    Raises:
        InputError: the recipe, an override, or what a flag names is wrong.
    """
    add_working_directory()
    recipe = load_recipe(path, overrides)
    nodes = build_graph(recipe)
    opened = Store(store)
    wanted = ancestors(nodes, select(nodes, only)) if only else set(nodes)
    kept = _named("--keep", keep, nodes, wanted, only)
    forced = set(_named("--force", force, nodes, wanted, only))
    nodes = {name: node for name, node in nodes.items() if name in wanted}
    plan = make_plan(nodes, opened, recipe.name, offline=offline, keep=kept, force=forced)
    return Session(recipe, nodes, plan, opened, forced)


def _named(flag: str, stages: list[str], nodes: dict[str, Node], wanted: set[str], only: str | None) -> list[str]:
    """Return the nodes that a flag names; one that --only leaves out would never run, so it is refused."""
    for stage in stages:
        if not wanted.intersection(select(nodes, stage)):
            raise RecipeError(f"{flag} {stage}: --only {only} does not need '{stage}'; leave out one of the two flags")
    return [name for stage in stages for name in select(nodes, stage) if name in wanted]


def write_note(session: Session, command: list[str]) -> None:
    """Note what a run works on, so that `status`, `logs` and `report` find it; nodes left out by --only stay noted."""
    folder = session.store.runs / session.recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    nodes = _known_nodes(folder / NOTE)
    for name, planned in session.plan.items():
        nodes[name] = {
            "stage": planned.node.stage,
            "fingerprint": planned.fingerprint,
            "needs": sorted({upstream for group in planned.node.needs.values() for upstream in group}),
            "state": planned.state,
            "causes": planned.causes,
        }
    full = {name for stage in session.recipe.stages for name in nodes if name.partition("@")[0] == stage}
    note = {
        "recipe": str(session.recipe.path),
        "recipe_text": session.recipe.text,
        "description": session.recipe.description,
        "command": shlex.join(["groundup", *command]),
        "driver": process_id(),
        "nodes": {name: values for name, values in nodes.items() if name in full},
    }
    write_json(folder / NOTE, note)


def _known_nodes(path: Path) -> dict[str, Any]:
    try:
        nodes: dict[str, Any] = json.loads(path.read_bytes())["nodes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return nodes


def read_note(store: Store, recipe: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of a recipe (given by its file or its name) and the note of its last run.

    Raises:
        InputError: it was never run in this store.
    """
    name = load_recipe(recipe).name if recipe.suffix in (".yaml", ".yml") or recipe.is_file() else str(recipe)
    return name, read_note_of(store, name, recipe)


def read_note_of(store: Store, name: str, recipe: Path | None = None) -> dict[str, Any]:
    """Return the note of the last run of recipe `name`.

    Raises:
        InputError: it was never run in this store, or its note cannot be read.
    """
    path = store.runs / name / NOTE
    try:
        note: dict[str, Any] = json.loads(path.read_bytes())
        missing = {"nodes", "driver", "command", "recipe_text"} - note.keys()
    except (FileNotFoundError, NotADirectoryError):
        others = [found.parent.name for found in store.runs.glob(f"*/{NOTE}")]
        raise InputError(
            f"'{name}' was never run in this store ({nearest(name, others)}); run it with: groundup run {recipe or name}"
        ) from None
    except (ValueError, AttributeError):
        missing = {"everything"}
    if missing:
        raise InputError(f"{path} cannot be read (it lacks {', '.join(sorted(missing))}); run the recipe again")
    return note
