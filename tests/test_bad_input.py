"""The table of bad input is complete: numbers without a gap, and a test that exists, or a reason, in every row."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = (ROOT / "tests" / "bad_input.md").read_text(encoding="utf-8")
COUNTS = {"7.1": 37, "7.2": 14, "7.3": 51, "7.4": 21, "7.5": 15, "7.6": 61, "7.7": 36, "8.1": 66, "8.2": 66, "T": 17}
"""Items of each section of the list of faults, split until each says one thing."""
ROWS = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in TABLE.splitlines() if re.match(r"\| [78T]", line)]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the test functions that the file `path` defines."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def test_the_numbers_have_no_gap_and_every_section_has_its_items() -> None:
    expected = [f"{section}{'' if section == 'T' else '.'}{n}" for section, count in COUNTS.items() for n in range(1, count + 1)]
    assert [row[0] for row in ROWS] == expected


@pytest.mark.parametrize("section", COUNTS)
def test_each_heading_says_how_many_items_follow(section: str) -> None:
    (said,) = re.findall(rf"^## {re.escape(section)} .*\((\d+) rows?\)$", TABLE, re.MULTILINE)
    assert int(said) == COUNTS[section]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_row_has_a_test_that_exists_or_a_reason(row: tuple[str, ...]) -> None:
    assert len(row) == 4, "a row has four cells"
    _, fault, answer, proof = row
    assert fault
    assert answer
    if match := TEST.fullmatch(proof):
        assert match[2] in names_in(match[1])
    else:
        assert "tests/" not in proof, "a test is written `tests/FILE.py::test_NAME`"
        assert len(proof.split()) >= 6, "a reason is a sentence"


def test_no_fault_is_listed_twice() -> None:
    faults = [row[1] for row in ROWS]
    assert len(set(faults)) == len(faults)
