"""A recipe: one YAML file that names the stages, their values and what needs what.

    name: quickstart
    seed: 1337
    stages:
      corpus:    {stage: stages.text.corpus, card: wiki-summaries}
      tokenizer: {stage: stages.text.tokenizer, needs: {corpus: corpus}, vocab_size: 4096}

Keys of a stage: `stage` (dotted package), `needs` (role -> stage or list of stages), `matrix` (key -> list of values; one
node for each combination), `launch` (how it runs; never part of the identity); all others are values of its Config.
A recipe is trusted: its dotted names say which code runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import RecipeError, nearest
from pipeline.launch import Launch
from pipeline.strict_yaml import Document, load_yaml, parse_scalar

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_RECIPE_KEYS = ("name", "description", "seed", "stages")
_STAGE_KEYS = ("stage", "needs", "matrix", "launch")


@dataclass(frozen=True)
class StageSpec:
    """One stage as the recipe wrote it."""

    name: str
    stage: str
    values: dict[str, Any]
    needs: dict[str, list[str]]
    matrix: dict[str, list[Any]]
    launch: Launch
    where: str


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe; `text` is the file as it stood."""

    name: str
    seed: int
    stages: dict[str, StageSpec]
    path: Path
    text: str
    description: str = ""
    overrides: list[str] = field(default_factory=list)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file.
        overrides: `stages.NAME.KEY=VALUE` (KEY may be dotted: `launch.processes`) or `seed=VALUE`; each key once.

    Raises:
        RecipeError: names file, line, key, rule and the nearest valid keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such recipe ({nearest(str(path), _recipes_near(path))})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    document = load_yaml(text, name=str(path))
    _check_each_once(overrides or [])
    for override in overrides or []:
        _apply(document, override)
    _check_keys(document, (), document.values, _RECIPE_KEYS)
    stages = _mapping(document, ("stages",), document.values.get("stages"))
    if not stages:
        raise RecipeError(f"{document.at('stages')}: key 'stages' names no stage; a recipe needs at least one")
    return Recipe(
        name=_name(document, ("name",), document.values.get("name")),
        seed=_seed(document),
        stages={name: _stage(document, name, value) for name, value in stages.items()},
        path=path,
        text=text,
        description=str(document.values.get("description") or ""),
        overrides=list(overrides or []),
    )


def _recipes_near(path: Path) -> set[str]:
    """Return the recipes that may have been meant: in the same folder, and in `configs/`."""
    return {str(found) for folder in (path.parent, Path("configs")) for found in folder.glob("*.y*ml")}


def _check_each_once(overrides: list[str]) -> None:
    told: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in told:
            raise RecipeError(f"override '{override}': {key} is set twice, to {told[key]!r} and to {value!r}; keep one of them")
        told[key] = value


def _apply(document: Document, override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise RecipeError(f"override '{override}': write stages.NAME.KEY=VALUE, such as stages.pretrain.depth=6")
    if parts[0] != "stages" and key not in ("seed", "name"):
        raise RecipeError(f"override '{override}': it must begin with 'stages.' or be 'seed=VALUE'")
    if parts[0] == "stages":
        known = document.values.get("stages") or {}
        if len(parts) < 3:
            raise RecipeError(f"override '{override}': write stages.NAME.KEY=VALUE, such as stages.pretrain.depth=6")
        if parts[1] not in known:
            raise RecipeError(f"override '{override}': the recipe has no stage '{parts[1]}' ({nearest(parts[1], known)})")
    target = document.values
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise RecipeError(f"override '{override}': '{part}' is not a mapping")
    target[parts[-1]] = parse_scalar(text)


def _stage(document: Document, name: str, value: Any) -> StageSpec:
    path = ("stages", name)
    _name(document, path, name)
    values = _mapping(document, path, value)
    if "stage" not in values:
        raise RecipeError(f"{document.at(*path)}: stage '{name}' lacks the key 'stage', the dotted name of what runs")
    return StageSpec(
        name=name,
        stage=_dotted(document, (*path, "stage"), values["stage"]),
        values={key: item for key, item in values.items() if key not in _STAGE_KEYS},
        needs=_needs(document, (*path, "needs"), values.get("needs")),
        matrix=_matrix(document, (*path, "matrix"), values.get("matrix")),
        launch=_launch(document, (*path, "launch"), values.get("launch")),
        where=f"{document.at(*path)}: stage '{name}'",
    )


def _needs(document: Document, path: tuple[str, ...], value: Any) -> dict[str, list[str]]:
    needs = {}
    for role, names in _mapping(document, path, value).items():
        listed = names if isinstance(names, list) else [names]
        if not listed or not all(isinstance(item, str) for item in listed):
            raise RecipeError(f"{document.at(*path, role)}: needs.{role} must name a stage, or a list of stages")
        needs[role] = listed
    return needs


def _matrix(document: Document, path: tuple[str, ...], value: Any) -> dict[str, list[Any]]:
    matrix = _mapping(document, path, value)
    for key, items in matrix.items():
        scalars = isinstance(items, list) and items and all(isinstance(item, str | int | float | bool) for item in items)
        if not scalars or len({str(item) for item in items}) != len(items):
            raise RecipeError(f"{document.at(*path, key)}: matrix.{key} must be a list of different plain values")
    return matrix


def _launch(document: Document, path: tuple[str, ...], value: Any) -> Launch:
    values = _mapping(document, path, value)
    _check_keys(document, path, values, tuple(Launch.model_fields))
    try:
        return Launch.model_validate(values, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = str(problem["loc"][0])
        raise RecipeError(f"{document.at(*path, key)}: launch.{key} is {values[key]!r}: {problem['msg'].lower()}") from None


def _check_keys(document: Document, path: tuple[str, ...], values: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            raise RecipeError(f"{document.at(*path, key)}: unknown key '{'.'.join((*path, key))}' ({nearest(key, known)})")


def _mapping(document: Document, path: tuple[str, ...], value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecipeError(f"{document.at(*path)}: '{'.'.join(path)}' is {value!r}; it must be a mapping of keys")
    return value


def _name(document: Document, path: tuple[str, ...], value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        rule = "use lower-case letters, digits, '-' and '_', as it names a folder"
        raise RecipeError(f"{document.at(*path)}: '{'.'.join(path)}' has the name {value!r}: {rule}")
    return value


def _dotted(document: Document, path: tuple[str, ...], value: Any) -> str:
    if not isinstance(value, str) or not all(part.isidentifier() for part in value.split(".")):
        raise RecipeError(f"{document.at(*path)}: {'.'.join(path)} is {value!r}; name a package, such as stages.text.corpus")
    return value


def _seed(document: Document) -> int:
    seed = document.values.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise RecipeError(f"{document.at('seed')}: seed is {seed!r}; it must be a whole number from 0 to 2**32 - 1")
    return seed
