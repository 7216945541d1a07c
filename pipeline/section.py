"""What a stage tells the report: an idea, a formula and blocks, as data.

Stages write data, never HTML: the report escapes everything in one place (`pipeline/report`).
"""

from __future__ import annotations

from typing import Any

Cell = str | int | float | bool | None


class Section:
    """The part of a report that one stage writes, saved as `section.json`."""

    def __init__(self) -> None:
        self.title = ""
        self.idea = ""
        self.formula = ""
        self.blocks: list[dict[str, Any]] = []

    def describe(self, *, title: str, idea: str, formula: str = "") -> None:
        """Open the section: `idea` in two sentences for a learner, `formula` as one line of plain Unicode text."""
        self.title, self.idea, self.formula = title, idea, formula

    def text(self, paragraph: str) -> None:
        """Add a paragraph of plain text."""
        self.blocks.append({"kind": "text", "text": paragraph})

    def table(self, title: str, columns: list[str], rows: list[list[Cell]], *, caption: str = "") -> None:
        """Add a table; numbers are formatted by the report."""
        wrong = [row for row in rows if len(row) != len(columns)]
        assert not wrong, f"table {title!r}: rows must have {len(columns)} cells, got {wrong[0]}"
        self.blocks.append({"kind": "table", "title": title, "columns": columns, "rows": rows, "caption": caption})

    def figure(self, path: str, caption: str) -> None:
        """Add the picture at `path` (relative to the artifact, SVG or PNG)."""
        self.blocks.append({"kind": "figure", "path": path, "caption": caption})

    def samples(self, title: str, columns: list[str], rows: list[list[str]], *, caption: str = "") -> None:
        """Add long texts side by side: generated text, documents; shown with their line breaks."""
        wrong = [row for row in rows if len(row) != len(columns)]
        assert not wrong, f"samples {title!r}: rows must have {len(columns)} cells"
        self.blocks.append({"kind": "samples", "title": title, "columns": columns, "rows": rows, "caption": caption})

    def facts(self, title: str, values: dict[str, Cell]) -> None:
        """Add exact numbers for an engineer; the report shows them folded."""
        self.blocks.append({"kind": "facts", "title": title, "values": values})

    def to_json(self) -> dict[str, Any]:
        """Return the section as the report reads it."""
        return {"title": self.title, "idea": self.idea, "formula": self.formula, "blocks": self.blocks}
