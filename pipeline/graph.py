"""From a recipe to nodes in order: a matrix is expanded, every value validated, every need checked."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pipeline.config import Input, StageConfig
from pipeline.errors import GroundupError, RecipeError, nearest
from pipeline.launch import Launch
from pipeline.launch_rules import check_launch
from pipeline.recipe import Recipe, StageSpec


@dataclass(frozen=True)
class Node:
    """One unit of work: a stage with its values, or one cell of its matrix."""

    name: str
    stage: str
    config: StageConfig
    needs: dict[str, tuple[str, ...]]
    launch: Launch


def build_graph(recipe: Recipe) -> dict[str, Node]:
    """Return the nodes of `recipe` by name, every node after those that it needs.

    Raises:
        RecipeError: an unknown stage or need, a wrong kind of input, a missing one, a cycle, a wrong value, launch
            settings that the stage cannot run with.
    """
    cells = {spec.name: _cells(spec, recipe.seed) for spec in recipe.stages.values()}
    configs = {name: next(iter(group.values())) for name, group in cells.items()}
    nodes: dict[str, Node] = {}
    for name in _order(recipe):
        spec = recipe.stages[name]
        _check_needs(spec, configs)
        check_launch(spec.launch, type(configs[name]), spec.stage, spec.where)
        needs = {role: tuple(n for upstream in ups for n in cells[upstream]) for role, ups in spec.needs.items()}
        _check_single(spec, configs[name].inputs, needs)
        for node_name, config in cells[name].items():
            nodes[node_name] = Node(node_name, spec.stage, config, needs, spec.launch)
    return nodes


def ancestors(nodes: dict[str, Node], names: Iterable[str]) -> set[str]:
    """Return `names` and everything that they need."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += [upstream for group in nodes[name].needs.values() for upstream in group]
    return found


def select(nodes: dict[str, Node], stage: str) -> list[str]:
    """Return the nodes of the recipe's stage `stage`: itself, or all cells of its matrix, or the one cell named.

    Raises:
        RecipeError: there is none.
    """
    found = [name for name in nodes if name == stage or name.startswith(f"{stage}@")]
    if not found:
        raise RecipeError(f"the recipe has no stage '{stage}' ({nearest(stage, nodes)})")
    return found


def config_class(stage: str, where: str) -> type[StageConfig]:
    """Import `Config` of a stage, and only its light `config` module.

    Raises:
        RecipeError: there is no such stage, or it has no Config.
    """
    name = f"{stage}.config"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        hint = f"'{error.name}' is not installed or not on the path" if error.name != name else "there is no such package"
        raise RecipeError(f"{where}: '{stage}' cannot be imported: {hint}; run from the folder that holds it") from None
    except GroundupError:
        raise
    except Exception as error:
        raise RecipeError(f"{where}: importing {name} failed with {type(error).__name__}: {error}") from error
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, StageConfig)):
        raise RecipeError(f"{where}: {name} defines no class Config(StageConfig)")
    return config


def _cells(spec: StageSpec, seed: int) -> dict[str, StageConfig]:
    kind = config_class(spec.stage, spec.where)
    nodes = {}
    for cell in itertools.product(*spec.matrix.values()):
        chosen = dict(zip(spec.matrix, cell, strict=True))
        if repeated := chosen.keys() & spec.values.keys():
            raise RecipeError(f"{spec.where}: key '{min(repeated)}' stands in the matrix and as a value; keep one")
        values: dict[str, Any] = spec.values | chosen
        if "seed" in kind.model_fields and "seed" not in values:
            values["seed"] = seed
        suffix = "@" + ",".join(f"{key}={value}" for key, value in chosen.items()) if chosen else ""
        if "/" in suffix or len(suffix) > 120:
            raise RecipeError(f"{spec.where}: the matrix cell '{suffix[1:]}' cannot name a folder; use short values without '/'")
        nodes[spec.name + suffix] = kind.parse(values, where=spec.where)
    return nodes


def _order(recipe: Recipe) -> list[str]:
    edges: dict[str, list[str]] = {}
    for spec in recipe.stages.values():
        edges[spec.name] = [upstream for group in spec.needs.values() for upstream in group]
        for upstream in edges[spec.name]:
            if upstream not in recipe.stages:
                raise RecipeError(f"{spec.where} needs '{upstream}', which the recipe lacks ({nearest(upstream, recipe.stages)})")
    try:
        return list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        raise RecipeError(f"{recipe.path}: these stages need each other in a circle: {' -> '.join(error.args[1])}") from None


def _check_needs(spec: StageSpec, configs: dict[str, StageConfig]) -> None:
    inputs = configs[spec.name].inputs
    for role, upstreams in spec.needs.items():
        if role not in inputs:
            raise RecipeError(f"{spec.where}: unknown need '{role}' ({nearest(role, inputs)})")
        for upstream in upstreams:
            produced = configs[upstream].produces
            if produced not in inputs[role].kinds:
                wanted = " or ".join(inputs[role].kinds)
                raise RecipeError(f"{spec.where}: needs.{role} takes {wanted}, but '{upstream}' makes {produced}")
    for role, wanted_input in inputs.items():
        if role not in spec.needs and not wanted_input.optional:
            wanted = " or ".join(wanted_input.kinds)
            raise RecipeError(f"{spec.where} lacks needs.{role} ({wanted_input.help}); name a stage that makes {wanted}")


def _check_single(spec: StageSpec, inputs: Any, needs: dict[str, tuple[str, ...]]) -> None:
    for role, names in needs.items():
        wanted: Input = inputs[role]
        if len(names) > 1 and not wanted.many:
            raise RecipeError(f"{spec.where}: needs.{role} takes one artifact, but {len(names)} are given: {', '.join(names)}")


def add_working_directory() -> None:
    """Let recipes name stages that live in the folder where the command runs."""
    if "" not in sys.path:
        sys.path.append("")
