"""The report of a recipe: one self-contained HTML page and its Markdown twin, made from records and sections alone.

`build_report` reads artifacts and returns text; it runs nothing, knows no stage and imports no tensor library. The same
artifacts give the same bytes: times come from records, none is taken while writing.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.collect import ReportNode, read_stages
from pipeline.report.markdown import render_markdown
from pipeline.report.page import render_page
from pipeline.report.summary import EARLIER, summarise

__all__ = ["EARLIER", "ReportNode", "build_report"]


def build_report(recipe_name: str, nodes: Sequence[ReportNode], *, recipe_text: str, command: str) -> tuple[str, str]:
    """Return the report as (HTML page, Markdown).

    Args:
        recipe_name: the recipe's name.
        nodes: all nodes of its graph, in any order.
        recipe_text: the recipe's file, word for word; comments at its top become the page's introduction.
        command: what to type to get these results again.
    """
    report = summarise(recipe_name, read_stages(nodes), recipe_text=recipe_text, command=command)
    return render_page(report), render_markdown(report)
