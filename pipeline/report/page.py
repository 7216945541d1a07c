"""The HTML page: one file that loads nothing from outside and runs no script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from pipeline.report import numbers
from pipeline.report.blocks import DIRECTIONS, grid, metric_count, metric_interval, metric_value, note, paragraph, section
from pipeline.report.collect import Cost, Stage
from pipeline.report.escape import Html, element
from pipeline.report.matrix import anchor, runs, section_of_cells
from pipeline.report.picture import graph
from pipeline.report.summary import Headline, Report

STYLE = Html(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))


def render_page(report: Report) -> str:
    """Return the whole page."""
    figures = count(1)
    main = element(
        "main",
        _header(report),
        *(
            section(run[0], number, figures) if len(run) == 1 else section_of_cells(run, number, figures)
            for number, run in enumerate(runs(report.stages), 1)
        ),
        _costs(report),
        _reproduce(report),
        id="top",
    )
    body = element("body", element("div", _contents(report), main, class_="page"))
    return f"<!DOCTYPE html>\n{element('html', _head(report), body, lang='en')}\n"


def policy() -> str:
    """Return the page's content security policy: nothing but embedded pictures and this one style sheet."""
    allowed = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"


def _head(report: Report) -> Html:
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{report.name} · Groundup report"),
        element("style", STYLE),
    )


def _contents(report: Report) -> Html:
    links = [
        element("li", element("a", _entry(run), href=f"#{anchor(run)}", class_=_mark([stage.node.status for stage in run])))
        for run in runs(report.stages)
    ]
    return element(
        "nav",
        element("p", element("a", report.name, href="#top"), class_="brand"),
        element("ol", *links),
        element(
            "ul",
            element("li", element("a", "Cost", href="#cost")),
            element("li", element("a", "How to reproduce", href="#reproduce")),
        ),
        aria_label="Contents",
    )


def _entry(run: Sequence[Stage]) -> str:
    return run[0].short if len(run) == 1 else f"{run[0].base} · {len(run)} cells"


def _mark(statuses: Sequence[str]) -> str | None:
    return next((status for status in ("failed", "missing", "adopted") if status in statuses), None)


def _header(report: Report) -> Html:
    tiles = [_tile(headline) for headline in report.headlines]
    return element(
        "header",
        element("p", "Groundup report", class_="kicker"),
        element("h1", report.name),
        paragraph(report.introduction, "lead") if report.introduction else "",
        element("p", report.verdict, class_="verdict"),
        *(note(text, f"note {kind}") for kind, text in report.warnings),
        element("div", *tiles, class_="tiles") if tiles else "",
        element("h2", "The stages at a glance", class_="plain"),
        graph(report.stages),
    )


def _tile(headline: Headline) -> Html:
    metric, stage = headline.metric, headline.stage
    where = ", ".join(part for part in (headline.origin, metric.split) if part)
    better = f"{DIRECTIONS[metric.higher_is_better][:-2]} is better" if metric.higher_is_better is not None else ""
    interval = metric_interval(metric) if metric.interval else ""
    count = f"n = {metric_count(metric)}" if metric.n is not None else ""
    small = " · ".join(part for part in (where, interval, count, better) if part)
    figure = element("p", metric_value(metric), " ", element("span", metric.unit_shown, class_="unit"), class_="figure")
    return element(
        "a", element("p", metric.label, class_="of"), figure, element("p", small, class_="small"), href=f"#{stage.anchor}"
    )


def _costs(report: Report) -> Html:
    rows = [[stage.node.name, stage.node.status, *_cost(stage.cost)] for stage in report.stages]
    rows.append(["total", "", *_cost(report.total)])
    columns = ["stage", "status", "wall time", "CPU time", "peak memory"]
    table = grid(columns, rows, [False, False, True, True, True], "Cost of the stages", "costs")
    lead = paragraph("What it took to compute each artifact, whenever that was; memory is the largest, not the sum.")
    return element("section", element("h2", "Cost", id="cost", class_="plain"), lead, table, aria_labelledby="cost")


def _cost(cost: Cost) -> list[str]:
    wall, cpu, memory = cost.wall_seconds, cost.cpu_seconds, cost.peak_memory_gib
    return [
        "–" if wall is None else numbers.seconds(wall),
        "–" if cpu is None else numbers.seconds(cpu),
        "–" if memory is None else numbers.memory(memory),
    ]


def _reproduce(report: Report) -> Html:
    origin = grid(["what", "version"], report.origin, [False, False], "Versions", "exact") if report.origin else Html()
    return element(
        "section",
        element("h2", "How to reproduce", id="reproduce", class_="plain"),
        paragraph("From a checkout of the commit below, in its virtual environment:"),
        _verbatim(report.command, "Command"),
        element("h3", "The recipe"),
        _verbatim(report.recipe_text.rstrip("\n"), "Recipe"),
        element("h3", "Versions"),
        origin or paragraph("No artifact says which versions made it."),
        aria_labelledby="reproduce",
    )


def _verbatim(text: str, label: str) -> Html:
    return element("pre", element("code", text), tabindex="0", role="region", aria_label=label)
