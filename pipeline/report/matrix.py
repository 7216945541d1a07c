"""The cells of a matrix on one page: one section for all of them, their figures side by side, each cell folded inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.report import numbers
from pipeline.report.blocks import badge, body, figures_of, grid, introduction, metric_interval, metric_value
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


def alike(run: Sequence[Stage]) -> bool:
    """True when all cells say the same about what they do, so that it is said once."""
    return len({(stage.title, stage.idea, stage.formula) for stage in run}) == 1


def title_of(run: Sequence[Stage]) -> str:
    """Return the title of a matrix: what its cells share, and the stage's name in the recipe."""
    first = run[0]
    return f"{first.title} · {first.base}" if alike(run) and first.title.lower() not in ("", first.base) else first.base


def side_by_side(run: Sequence[Stage]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of a table of what the cells measured: a dash where one has not, such as a failed one."""
    found: dict[_Key, list[Metric]] = {}
    for stage in run:
        for metric in figures_of(stage):
            found.setdefault(_key(metric), [])
    values = [{_key(metric): metric for metric in stage.metrics} for stage in run]
    for key, metrics in found.items():
        metrics += [value[key] for value in values if key in value]
    units = {key: {metric.unit_shown for metric in metrics} for key, metrics in found.items()}
    differ = len({stage.node.status for stage in run}) > 1
    rows = []
    for stage, value in zip(run, values, strict=True):
        took = stage.cost.wall_seconds
        cells = [_value(value.get(key), with_unit=len(units[key]) > 1) for key in found]
        state = [stage.node.status] if differ else []
        rows.append([stage.cell, *state, *cells, "–" if took is None else numbers.seconds(took)])
    splits = {split for _, split, _ in found}
    heads = [_head(metrics[0], units[key], with_split=len(splits) > 1) for key, metrics in found.items()]
    return ["cell", *(["state"] if differ else []), *heads, "wall time"], rows


def section_of_cells(run: Sequence[Stage], number: int, figures: Iterator[int]) -> Html:
    """Return the section of a matrix; `figures` counts the figures of the page."""
    first, same = run[0], alike(run)
    states = sorted({stage.node.status for stage in run})
    columns, rows = side_by_side(run)
    numeric = [column not in ("cell", "state") for column in columns]
    return element(
        "section",
        element("h2", element("span", f"{number}", class_="number"), title_of(run), id=anchor(run)),
        element("p", element("code", f"{first.base}: {len(run)} cells"), *map(badge, states), class_="stage-line"),
        *(introduction(first) if same else ()),
        grid(columns, rows, numeric, f"Cells of {first.base}", "metrics"),
        *(_cell(stage, figures, same) for stage in run),
        aria_labelledby=anchor(run),
    )


_Key = tuple[str, str | None, str]


def _key(metric: Metric) -> _Key:
    return metric.name, metric.split, metric.subject


def _head(metric: Metric, units: set[str], *, with_split: bool) -> str:
    words = f"{metric.label}, {metric.split}" if with_split and metric.split else metric.label
    return f"{words} ({metric.unit_shown})" if units == {metric.unit_shown} != {""} else words


def _value(metric: Metric | None, *, with_unit: bool) -> str:
    if metric is None:
        return "–"
    unit = f" {metric.unit_shown}" if with_unit and metric.unit_shown else ""
    return metric_value(metric) + unit + (f" ({metric_interval(metric)})" if metric.interval else "")


def _cell(stage: Stage, figures: Iterator[int], same: bool) -> Html:
    heading = element("h3", stage.node.name if same else stage.heading, id=stage.anchor)
    content = body(stage, heading, figures, introduced=same)
    return element("details", element("summary", f"{stage.cell}: {stage.node.status}"), content, class_="stage")
