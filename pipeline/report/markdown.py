"""The report as Markdown (CommonMark with tables, as GitHub shows it), for terminals, issues and model cards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from urllib.parse import quote

from pipeline.report import numbers
from pipeline.report.blocks import DIRECTIONS, metric_count, metric_interval, metric_value
from pipeline.report.collect import Block, Cost, Facts, Figure, Note, Samples, Stage, Table, Text
from pipeline.report.details import details
from pipeline.report.escape import fenced, to_markdown
from pipeline.report.matrix import alike, runs, side_by_side, title_of
from pipeline.report.summary import Headline, Report

_HEADLINE = ("stage", "figure", "split", "value", "95 % interval", "n")


def render_markdown(report: Report) -> str:
    """Return the whole document; its parts are separated by one blank line."""
    figures = count(1)
    parts = [f"# {to_markdown(report.name)}"]
    parts += [to_markdown(text) for text in (report.introduction, report.verdict) if text]
    parts += [f"> **Warning:** {to_markdown(text)}" for _, text in report.warnings]
    if report.headlines:
        parts.append(table(_HEADLINE, [_headline(one) for one in report.headlines]))
    parts += ["## The stages at a glance", _overview(report)]
    for number, run in enumerate(runs(report.stages), 1):
        if len(run) == 1:
            parts += [f"## {number}. {to_markdown(run[0].heading)}", *_section(run[0], figures)]
        else:
            parts += [f"## {number}. {to_markdown(title_of(run))}", *_section_of_cells(run, figures)]
    parts += ["## How to reproduce", fenced(report.command, "sh"), fenced(report.recipe_text.rstrip("\n"), "yaml")]
    if report.origin:
        parts.append(table(["what", "version"], report.origin))
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; every cell is one escaped line, so that data cannot end a cell or a row."""
    lines = [columns, *rows]
    text = ["| " + " | ".join(to_markdown(cell) or " " for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|" + " --- |" * len(columns), *text[1:]])


def _headline(headline: Headline) -> list[str]:
    metric = headline.metric
    value = f"{metric_value(metric)} {metric.unit_shown}".rstrip()
    return [headline.origin, metric.label, metric.split or "–", value, metric_interval(metric), metric_count(metric)]


def _overview(report: Report) -> str:
    rows = [
        [stage.node.name, ", ".join(stage.node.needs) or "–", stage.node.status, *_cost(stage.cost)] for stage in report.stages
    ]
    rows.append(["total", "", "", *_cost(report.total)])
    return table(["stage", "needs", "status", "wall time", "CPU time", "peak memory"], rows)


def _cost(cost: Cost) -> list[str]:
    wall, cpu, memory = cost.wall_seconds, cost.cpu_seconds, cost.peak_memory_gib
    return [
        "–" if wall is None else numbers.seconds(wall),
        "–" if cpu is None else numbers.seconds(cpu),
        "–" if memory is None else numbers.memory(memory),
    ]


def _section_of_cells(run: Sequence[Stage], figures: count[int]) -> list[str]:
    first, same = run[0], alike(run)
    parts = _introduction(first) if same else []
    parts.append(table(*side_by_side(run)))
    for stage in run:
        parts += [f"### {to_markdown(stage.cell)}", *_section(stage, figures, introduced=same, level=4)]
    return parts


def _introduction(stage: Stage) -> list[str]:
    return ([to_markdown(stage.idea)] if stage.idea else []) + ([fenced(stage.formula, "text")] if stage.formula else [])


def _section(stage: Stage, figures: count[int], *, introduced: bool = False, level: int = 3) -> list[str]:
    node = stage.node
    parts = [f"Stage {to_markdown(node.name)}: **{to_markdown(node.status)}**"]
    parts += [f"> {to_markdown(text)}" for text in (*node.causes, *node.notes) if text.strip()]
    for one in node.artifact.record.adopted if node.artifact else []:
        words = f"Adopted on {one.time}: code {one.code_before[:12]} became {one.code_after[:12]}; not computed again."
        parts.append(f"> **Warning:** {to_markdown(words)}")
    if node.artifact is None:
        parts.append("There is no artifact of this stage yet.")
    parts += [] if introduced else _introduction(stage)
    if any(metric.listed for metric in stage.metrics):
        parts.append(_metrics(stage))
    parts += [text for block in stage.blocks if (text := _block(block, stage, figures, "#" * level))]
    return parts + _folded(stage)


def _metrics(stage: Stage) -> str:
    rows = [
        [
            metric.label,
            metric_value(metric),
            metric_interval(metric),
            metric.unit_shown or "–",
            metric.split or "–",
            metric_count(metric),
            DIRECTIONS[metric.higher_is_better],
        ]
        for metric in stage.metrics
        if metric.listed
    ]
    return table(["metric", "value", "interval", "unit", "split", "n", "better"], rows)


def _block(block: Block | Note, stage: Stage, figures: count[int], mark: str) -> str:
    if isinstance(block, Text | Note):
        return to_markdown(block.text)
    if isinstance(block, Figure):
        return _figure(block, stage, next(figures))
    if isinstance(block, Facts):
        return ""
    parts = [f"{mark} {to_markdown(block.title)}"] if block.title else []
    parts += [to_markdown(block.caption)] if block.caption else []
    if isinstance(block, Table):
        parts.append(table(block.columns, [[numbers.cell(value) for value in row] for row in block.rows]))
    if isinstance(block, Samples):
        parts += _samples(block)
    return "\n\n".join(parts)


def _samples(block: Samples) -> list[str]:
    parts = []
    for number, row in enumerate(block.rows, 1):
        for column, text in zip(block.columns, row, strict=True):
            parts += [f"{number}, {to_markdown(column)}:", fenced(text, "text")]
    return parts


def _figure(block: Figure, stage: Stage, number: int) -> str:
    caption = to_markdown(block.caption)
    if block.problem:
        return f"Figure {number}. {caption}\n\n> {to_markdown(f'The figure {block.path!r} {block.problem}.')}"
    address = f"{quote(stage.node.name)}/{quote(block.path)}"  # beside the report, every node's name links to its artifact
    return f"![{caption or f'Figure {number}'}]({address})\n\nFigure {number}. {caption}"


def _folded(stage: Stage) -> list[str]:
    tables = details(stage)
    if not tables:
        return []
    parts = ["<details><summary>Engineer's details</summary>"]
    for one in tables:
        parts += [f"**{to_markdown(one.title)}**", table(one.columns, one.rows)]
    return [*parts, "</details>"]
