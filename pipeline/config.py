"""The base of every stage's `Config`: frozen, strict, light (pydantic only, so that `plan` stays fast)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import RecipeError, nearest
from pipeline.sources import Source


@dataclass(frozen=True)
class Input:
    """One artifact that a stage reads.

    `kinds`: what it accepts, as named by the producer's `Config.produces`. `many`: it takes every cell of a matrix.
    """

    kinds: tuple[str, ...]
    help: str
    optional: bool = False
    many: bool = False


class StageConfig(BaseModel):
    """Values that define what a stage computes; every one of them enters the fingerprint.

    Put a sentence with the unit under each field: `groundup stages` and `--help` read it from there. A field named `seed` is
    filled from the recipe. Where and how a stage runs (devices, processes, paths) never belongs here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    produces: ClassVar[str] = "files"
    """Kind of the artifact, which consumers name in their `inputs`."""
    inputs: ClassVar[Mapping[str, Input]] = {}
    """Role -> what the stage reads under that role; a recipe's `needs` fills it."""

    locations: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where something lies; not they but the content found there (`sources`) is part of the identity."""

    shares_work: ClassVar[bool] = False
    """Whether several processes (`launch.processes`) may run the stage together.

    Then each does its share, and only the main one (`context.is_main`) writes. A stage that does not say so would run once
    in each process, and all of them would write the same files; the engine refuses that.
    """

    def identity(self) -> dict[str, Any]:
        """Return the values that enter the fingerprint."""
        return self.model_dump(mode="json", exclude=set(self.locations))

    def sources(self) -> list[Source]:
        """Return what the stage reads from outside the store; its content enters the fingerprint."""
        return []

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, where: str) -> Self:
        """Validate plain values strictly: no unknown key, no conversion of strings to numbers.

        Raises:
            RecipeError: names the key, the value, the rule and the nearest valid keys. `where` opens the message.
        """
        try:
            return cls.model_validate_json(json.dumps(dict(values)), strict=True)
        except ValidationError as error:
            known = list(cls.model_fields)
            lines = [_explain(problem, known) for problem in error.errors(include_url=False)]
            raise RecipeError(f"{where}: " + "; ".join(lines)) from None


def _explain(problem: Any, known: list[str]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}' ({nearest(str(problem['loc'][0]), known)})"
    if problem["type"] == "missing":
        return f"key '{key}' is missing and has no default"
    rule = str(problem["msg"]).removeprefix("Value error, ")
    if not key:
        return rule
    return f"key '{key}' is {json.dumps(problem['input'], default=str)}: {rule[:1].lower()}{rule[1:]}"
