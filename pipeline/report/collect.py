"""What a report is made from: nodes as the engine hands them over, read into plain values that need no further checks.

Whatever an artifact says about itself is data of unknown quality: a block or a metric that cannot be read becomes a note on
the page, never an error, and a file is shown only if its bytes are those of the artifact's record.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pipeline.artifact import Artifact
from pipeline.report import numbers

MAX_SECTION_BYTES = 16 * 2**20
MAX_FIGURE_BYTES = 4 * 2**20
"""Larger figures are left out of the page, which embeds all it shows, and named instead."""

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class ReportNode:
    """One node of a recipe's graph, as the engine sees it when the report is written.

    Attributes:
        name: the node's name in the recipe, such as `pretrain` or `pretrain@seed=0`.
        needs: names of the nodes it reads.
        status: `cached`, `adopted`, `ran` (or `done`), `failed`, `missing`, or another short word.
        artifact: what the node produced; None when there is nothing.
        causes: why it ran, or why it failed, one sentence each.
        machine: the content of the artifact's `machine.json`; notes: what else the reader must know, such as an adoption.
    """

    name: str
    needs: Sequence[str] = ()
    status: str = "missing"
    artifact: Artifact | None = None
    causes: Sequence[str] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class _Block(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Text(_Block):
    """A paragraph."""

    kind: Literal["text"] = "text"
    text: str


class _Grid(_Block):
    title: str = ""
    caption: str = ""
    columns: list[str]

    @model_validator(mode="after")
    def _rectangular(self) -> _Grid:
        if any(len(row) != len(self.columns) for row in getattr(self, "rows", [])):
            raise ValueError(f"every row must have {len(self.columns)} cells")
        return self


class Table(_Grid):
    """Numbers and short texts."""

    kind: Literal["table"] = "table"
    rows: list[list[Cell]]


class Samples(_Grid):
    """Long texts, side by side."""

    kind: Literal["samples"] = "samples"
    rows: list[list[str]]


class Figure(_Block):
    """A picture: a path inside the artifact, and its bytes or the reason why there are none."""

    kind: Literal["figure"] = "figure"
    path: str
    caption: str = ""
    content: bytes = b""
    problem: str = ""

    @property
    def media_type(self) -> str:
        """`image/svg+xml` or `image/png`."""
        return "image/svg+xml" if self.path.lower().endswith(".svg") else "image/png"


class Facts(_Block):
    """Exact numbers, folded."""

    kind: Literal["facts"] = "facts"
    title: str = ""
    values: dict[str, Any]


@dataclass(frozen=True)
class Note:
    """Something that could not be shown, and why."""

    text: str


Block = Text | Table | Samples | Figure | Facts
_BLOCK: TypeAdapter[Block] = TypeAdapter(Annotated[Block, Field(discriminator="kind")])


class Metric(BaseModel):
    """One line of `metrics.json`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    value: int | float
    unit: str
    higher_is_better: bool | None = None
    n: int | None = None
    split: str | None = None
    interval: tuple[float, float] | None = None
    headline: bool = False
    title: str = ""
    listed: bool = True
    subject: str = Field(default="", alias="label")

    @property
    def unit_shown(self) -> str:
        """The unit, with a prefix that fits the value; empty for a pure number (unit `1`)."""
        return "" if self.unit == "1" else numbers.unit_for(self.value, self.unit)[1]

    @property
    def label(self) -> str:
        """The title that the stage gave, else the name in words, and of what it is where one stage measures several things."""
        return ": ".join(filter(None, [self.subject, self.title or numbers.name(self.name, self.unit)]))


@dataclass(frozen=True)
class Cost:
    """What a stage used; None where it was not measured."""

    wall_seconds: float | None
    cpu_seconds: float | None
    peak_memory_gib: float | None


@dataclass(frozen=True)
class Stage:
    """One node, read: everything that a page says about it."""

    anchor: str
    node: ReportNode
    title: str
    idea: str
    formula: str
    blocks: list[Block | Note]
    metrics: list[Metric]
    cost: Cost

    @property
    def base(self) -> str:
        """The stage's name in the recipe, which the cells of a matrix share."""
        return self.node.name.partition("@")[0]

    @property
    def cell(self) -> str:
        """The values of a matrix cell, `seed=0, family=vae`; empty for other nodes."""
        return self.node.name.partition("@")[2].replace(",", ", ")

    @property
    def heading(self) -> str:
        """The title; the cells of a matrix, which share one, are told apart by their values."""
        if not self.title:
            return self.node.name
        return f"{self.title} · {self.cell}" if self.cell else self.title

    @property
    def short(self) -> str:
        """The heading for a list, where the cells of a matrix need no title each."""
        return f"{self.base} · {self.cell}" if self.cell else self.heading


def read_stages(nodes: Sequence[ReportNode]) -> list[Stage]:
    """Return the nodes in topological order (their own order where the graph leaves a choice), each read."""
    stages = [read_stage(index, node) for index, node in enumerate(in_order(nodes), 1)]
    titles = Counter(stage.title for stage in stages if not stage.cell)
    shared = {title for title, count in titles.items() if title and count > 1}
    return [replace(stage, title=_told_apart(stage)) if stage.title in shared and not stage.cell else stage for stage in stages]


def _told_apart(stage: Stage) -> str:
    """Return a title that other stages share, with the stage's own name unless that says the same."""
    return stage.title if stage.node.name == stage.title.lower() else f"{stage.title} · {stage.node.name}"


def in_order(nodes: Sequence[ReportNode]) -> list[ReportNode]:
    """Return `nodes` so that each stands after all it needs."""
    names = {node.name for node in nodes}
    done: set[str] = set()
    left, ordered = list(nodes), []
    while left:
        ready = next((node for node in left if all(one in done or one not in names for one in node.needs)), None)
        assert ready is not None, "the graph of a report has no cycle"
        left.remove(ready)
        ordered.append(ready)
        done.add(ready.name)
    return ordered


def read_stage(index: int, node: ReportNode) -> Stage:
    """Read what the artifact of `node` says about itself."""
    section, notes = _section(node)
    metrics: list[Metric] = []
    for row in node.artifact.record.metrics if node.artifact else []:
        try:
            metrics.append(Metric.model_validate(row))
        except ValidationError as error:
            notes.append(Note(f"A metric cannot be read ({_reason(error)})."))
    blocks: list[Block | Note] = [*notes]
    listed = section.get("blocks", [])
    blocks += [_block(block, node.artifact) for block in (listed if isinstance(listed, list) else [])]
    words = {key: str(section.get(key) or "") for key in ("title", "idea", "formula")}
    slug = re.sub(r"[^a-z0-9]+", "-", node.name.lower()).strip("-")
    return Stage(f"stage-{index}-{slug}", node, blocks=blocks, metrics=metrics, cost=_cost(node), **words)


def proved(artifact: Artifact, name: str, limit: int) -> tuple[bytes, str]:
    """Return the bytes of file `name` of `artifact`, or none and the reason why it is not shown.

    Only a file of the record's manifest is read, so a path that leads out of the artifact has no way in.
    """
    entry = artifact.record.files.get(name)
    if entry is None or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return b"", "is not a file of this artifact"
    if entry.size > limit:
        return b"", f"is too large to show here ({entry.size:,} bytes, at most {limit:,})"
    try:
        with open(artifact / name, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        return b"", "was changed after it was made (its sha256 is not that of the record)"
    return content, ""


def _section(node: ReportNode) -> tuple[dict[str, Any], list[Note]]:
    if node.artifact is None:
        return {}, []
    content, problem = proved(node.artifact, "section.json", MAX_SECTION_BYTES)
    if problem:
        return {}, [Note(f"The stage's section.json {problem}.")]
    try:
        section = json.loads(content)
    except (ValueError, RecursionError):
        section = None
    if not isinstance(section, dict):
        return {}, [Note("The stage's section.json is not a JSON object.")]
    return section, []


def _block(values: Any, artifact: Artifact | None) -> Block | Note:
    try:
        block = _BLOCK.validate_python(values)
    except ValidationError as error:
        return Note(f"A block of this section cannot be shown ({_reason(error)}).")
    if not isinstance(block, Figure) or artifact is None:
        return block
    if not block.path.lower().endswith((".svg", ".png")):
        return block.model_copy(update={"content": b"", "problem": "is neither SVG nor PNG"})
    content, problem = proved(artifact, block.path, MAX_FIGURE_BYTES)
    return block.model_copy(update={"content": content, "problem": problem})


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"]) + f": {first['msg']}"


def _cost(node: ReportNode) -> Cost:
    recorded = node.artifact.record.provenance if node.artifact else {}

    def measured(key: str) -> float | None:
        value = node.machine.get(key, recorded.get(key))
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number else None

    return Cost(measured("wall_seconds"), measured("cpu_seconds"), measured("peak_memory_gib"))
