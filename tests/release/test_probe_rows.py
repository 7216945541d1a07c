"""Which rows a repository is measured on."""

from __future__ import annotations

import pytest
from datasets import Dataset

from stages.common.release.layout import CARD
from stages.common.release.probe import TEXTS, Probe
from stages.release.publish import clean_load
from stages.release.publish.__main__ import _check, _parser
from stages.release.publish.assemble import assemble
from stages.release.publish.lineage import trace
from stages.release.publish.probe_rows import MAX_CHARACTERS, NUM_ROWS, ProbeRows, probe_rows
from tests.release import toy_store as toy


def model_of(root, rows, **corpus):
    """A toy model whose corpus has these test rows."""
    data = toy.corpus(root, **corpus)
    Dataset.from_dict({"text": rows}).save_to_disk(data.path / "data" / "test")
    return trace(toy.pretrained(root, data))


def test_rows_are_the_first_of_test_without_what_is_private_cut_to_a_length(tmp_path):
    rows = ["", "write to someone@example.org", "long " * 200, *(f"row {number}" for number in range(9))]
    chosen = probe_rows(model_of(tmp_path, rows), "me/toy").texts
    assert chosen == (("long " * 200)[:MAX_CHARACTERS], "row 0", "row 1", "row 2")
    assert len(chosen) == NUM_ROWS


def test_without_a_row_that_may_be_shown_our_own_texts_are_measured(tmp_path):
    assert probe_rows(model_of(tmp_path, ["", "hf_" + "x" * 30]), "me/toy") == ProbeRows(TEXTS)


@pytest.mark.parametrize(
    ("own", "licence"), [(True, "mit"), (False, "proprietary"), (False, "cc-by-nd-4.0"), (False, "not stated")]
)
def test_rows_leave_only_out_of_a_data_card_whose_licence_lets_them_be_passed_on(tmp_path, own, licence):
    lineage = model_of(tmp_path, ["a row of my diary"], own=own, licence=licence)
    assert probe_rows(lineage, "me/toy") == ProbeRows(TEXTS)


def test_the_card_says_which_texts_stand_in_the_probe(tmp_path):
    def card(root, **corpus):
        model = model_of(root, ["a row"], **corpus).artifact
        return (assemble(model, None, "me/toy", root / "out", stated_license="mit").folder / CARD).read_text()

    taken = "measures one number on 1 test rows of wiki-summaries (licence cc-by-sa-4.0), which are copied into it"
    assert taken in card(tmp_path / "a")
    assert "on 3 texts of Groundup's own; no row of the data is in it" in card(tmp_path / "b", own=True, licence="mit")


def test_the_probe_is_searched_once_it_is_written(tmp_path, monkeypatch, capsys):
    assembled = assemble(model_of(tmp_path, ["a row"]).artifact, None, "me/toy", tmp_path / "out")
    for text, accepted in (("a row", True), ("see /home/ada/x", False)):
        probe = Probe(metric="bits_per_byte", value=1.0, n=5, texts=[text])
        monkeypatch.setattr(clean_load, "prove", lambda _, probe=probe: clean_load.Evidence(probe=probe))
        fresh = assemble(assembled.lineage.artifact, None, "me/toy", tmp_path / "out")
        assert _check(fresh, _parser().parse_args(["x", "--repo", "me/toy"])) is accepted
    assert "probe.json, line" in capsys.readouterr().out
