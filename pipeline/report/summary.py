"""What a report says about the whole recipe: its introduction, its headline figures, its total cost, its origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report import numbers
from pipeline.report.collect import Cost, Metric, Stage

MAX_HEADLINES = 8

EARLIER = "earlier run"
"""Status of a node whose artifact was made from others than those that the page shows."""


@dataclass(frozen=True)
class Headline:
    """One figure of the page's head."""

    stage: Stage
    metric: Metric

    @property
    def origin(self) -> str:
        """The stage, and that it is of an earlier run where it is."""
        return f"{self.stage.node.name} ({EARLIER})" if self.stage.node.status == EARLIER else self.stage.node.name


@dataclass(frozen=True)
class Report:
    """All that the page and its Markdown twin show."""

    name: str
    introduction: str
    verdict: str
    warnings: list[tuple[str, str]]
    headlines: list[Headline]
    stages: list[Stage]
    total: Cost
    origin: list[tuple[str, str]]
    recipe_text: str
    command: str


def summarise(name: str, stages: list[Stage], *, recipe_text: str, command: str) -> Report:
    """Return everything that the renderers need."""
    total = Cost(
        _total(stage.cost.wall_seconds for stage in stages),
        _total(stage.cost.cpu_seconds for stage in stages),
        max((gib for stage in stages if (gib := stage.cost.peak_memory_gib) is not None), default=None),
    )
    return Report(
        name=name,
        introduction=_introduction(recipe_text),
        verdict=_verdict(stages, total),
        warnings=_warnings(stages),
        headlines=_headlines(stages),
        stages=stages,
        total=total,
        origin=_origin(stages),
        recipe_text=recipe_text,
        command=command,
    )


def _introduction(recipe_text: str) -> str:
    """Return the first paragraph of the comment at the top of the recipe: its author wrote there what it is for."""
    lines = []
    for line in recipe_text.splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.lstrip("#").strip())
    return " ".join(lines).strip()


def _verdict(stages: Sequence[Stage], total: Cost) -> str:
    counts = Counter(stage.node.status for stage in stages)
    parts = [f"{count} {status}" for status, count in counts.items()]
    verdict = f"{len(stages)} stage{'' if len(stages) == 1 else 's'}: {', '.join(parts) or 'none'}."
    if total.wall_seconds is not None:
        verdict += f" {numbers.seconds(total.wall_seconds)} of work"
        verdict += f", at most {numbers.memory(total.peak_memory_gib)} of memory." if total.peak_memory_gib else "."
    return verdict


def _warnings(stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """Return (`failed` or `adopted`, sentence) for what nobody may overlook."""
    warnings = []
    for stage in stages:
        name = stage.node.name
        if stage.node.status == "failed":
            warnings.append(("failed", f"{name} failed: what needs it is missing or from an earlier run."))
        if stage.node.status == "adopted" or (stage.node.artifact and stage.node.artifact.record.adopted):
            words = f"{name} was adopted: its code changed after it ran, and a person said that the result stays."
            warnings.append(("adopted", words))
    return warnings


def _headlines(stages: Sequence[Stage]) -> list[Headline]:
    """Return the metrics that stages marked with `headline=True`, else each stage's first on a test split.

    Where no stage has tested anything, the first that can be better or worse stands for each. The last stages say most;
    other stages go before the cells of a matrix, which are many.
    """
    marked = [Headline(stage, metric) for stage in stages for metric in stage.metrics if metric.headline]
    if marked:
        return _without_cells(marked)[-MAX_HEADLINES:]
    judged = [(stage, [metric for metric in stage.metrics if metric.higher_is_better is not None]) for stage in stages]
    tested = [(stage, [metric for metric in metrics if metric.split == "test"]) for stage, metrics in judged]
    chosen = tested if any(metrics for _, metrics in tested) else judged
    firsts = [Headline(stage, metrics[0]) for stage, metrics in chosen if metrics]
    return _without_cells(firsts)[-MAX_HEADLINES:]


def _without_cells(headlines: list[Headline]) -> list[Headline]:
    return [headline for headline in headlines if not headline.stage.cell] or headlines


def _origin(stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """Return commit and library versions; where stages differ, which stage had which."""
    found: dict[str, dict[str, list[str]]] = {}
    for stage in stages:
        provenance = stage.node.artifact.record.provenance if stage.node.artifact else {}
        for key, value in _origin_of(provenance):
            found.setdefault(key, {}).setdefault(value, []).append(stage.node.name)
    rows = []
    for key, values in found.items():
        one = len(values) == 1
        text = next(iter(values)) if one else "; ".join(f"{value} ({', '.join(names)})" for value, names in values.items())
        rows.append((key, text))
    return rows


def _origin_of(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    versions = provenance.get("versions")
    rows = [(key, str(provenance[key])) for key in ("commit", "groundup") if provenance.get(key)]
    return rows + [(str(key), str(value)) for key, value in sorted(versions.items())] if isinstance(versions, dict) else rows


def _total(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) if measured else None
