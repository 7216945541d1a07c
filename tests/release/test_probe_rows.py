"""Which rows a repository is measured on."""

from __future__ import annotations

from datasets import Dataset

from stages.common.release.probe import TEXTS
from stages.release.publish.lineage import trace
from stages.release.publish.probe_rows import MAX_CHARACTERS, NUM_ROWS, probe_rows
from tests.release import toy_store as toy


def model_of(root, rows):
    """A toy model whose corpus has these test rows."""
    data = toy.corpus(root)
    Dataset.from_dict({"text": rows}).save_to_disk(data.path / "data" / "test")
    return trace(toy.pretrained(root, data))


def test_rows_are_the_first_of_test_without_what_is_private_cut_to_a_length(tmp_path):
    rows = ["", "write to someone@example.org", "long " * 200, *(f"row {number}" for number in range(9))]
    chosen = probe_rows(model_of(tmp_path, rows), "me/toy")
    assert chosen == [("long " * 200)[:MAX_CHARACTERS], "row 0", "row 1", "row 2"]
    assert len(chosen) == NUM_ROWS


def test_without_a_row_that_may_be_shown_our_own_texts_are_measured(tmp_path):
    assert probe_rows(model_of(tmp_path, ["", "hf_" + "x" * 30]), "me/toy") == list(TEXTS)
