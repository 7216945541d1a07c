"""The cells of a matrix on one page: one section for all of them, their figures side by side, each cell folded inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.report import numbers
from pipeline.report.blocks import badge, body, figures_of, grid, introduction, metric_value
from pipeline.report.collect import Metric, Stage
from pipeline.report.escape import Html, element
from pipeline.report.picture import FEW


def runs(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Return the stages in their order, those of one matrix that follow each other together once they are `FEW`."""
    found: list[list[Stage]] = []
    for stage in stages:
        if found and stage.cell and stage.base == found[-1][0].base:
            found[-1].append(stage)
        else:
            found.append([stage])
    return [part for run in found for part in ([run] if len(run) >= FEW else [[stage] for stage in run])]


def anchor(run: Sequence[Stage]) -> str:
    """Return the anchor of a run's section."""
    return run[0].anchor if len(run) == 1 else f"{run[0].anchor}-cells"


def section_of_cells(run: Sequence[Stage], number: int, figures: Iterator[int]) -> Html:
    """Return the section of a matrix; `figures` counts the figures of the page."""
    first = run[0]
    alike = len({(stage.title, stage.idea, stage.formula) for stage in run}) == 1
    title = f"{first.title} · {first.base}" if alike and first.title.lower() not in ("", first.base) else first.base
    states = sorted({stage.node.status for stage in run})
    return element(
        "section",
        element("h2", element("span", f"{number}", class_="number"), title, id=anchor(run)),
        element("p", element("code", f"{first.base}: {len(run)} cells"), *map(badge, states), class_="stage-line"),
        *(introduction(first) if alike else ()),
        _side_by_side(run),
        *(_cell(stage, figures, alike) for stage in run),
        aria_labelledby=anchor(run),
    )


def _side_by_side(run: Sequence[Stage]) -> Html:
    """A table of what every cell measured on the same split, and of its time."""
    common = [metric for metric in figures_of(run[0]) if all(_key(metric) in map(_key, stage.metrics) for stage in run)]
    heads = [f"{metric.label} ({metric.unit_shown})" if metric.unit_shown else metric.label for metric in common]
    rows = []
    for stage in run:
        values = {_key(metric): metric_value(metric) for metric in stage.metrics}
        took = stage.cost.wall_seconds
        time = "–" if took is None else numbers.seconds(took)
        rows.append([stage.cell, *(values[_key(metric)] for metric in common), time])
    return grid(["cell", *heads, "wall time"], rows, [False, *[True] * (len(heads) + 1)], f"Cells of {run[0].base}", "metrics")


def _key(metric: Metric) -> tuple[str, str | None]:
    return metric.name, metric.split


def _cell(stage: Stage, figures: Iterator[int], alike: bool) -> Html:
    heading = element("h3", stage.node.name if alike else stage.heading, id=stage.anchor)
    content = body(stage, heading, figures, introduced=alike)
    return element("details", element("summary", f"{stage.cell}: {stage.node.status}"), content, class_="stage")
