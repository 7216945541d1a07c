"""A model that was compared with others: its card shows what was measured of it, and nothing of the others."""

from __future__ import annotations

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from stages.common.release.layout import CARD, Manifest, load_provenance
from stages.common.release.measured import rows_about, subjects
from stages.common.release.origin import provenance_problems
from stages.release.publish.assemble import assemble
from stages.release.publish.checks import problems
from tests.release import toy_store as toy
from tests.release.published import close, published, record_of, save_record

SIBLINGS, RIVAL, JUDGE = ("b0000001", "b0000002", "b0000003"), "b0000009", "a0000001"


@pytest.fixture
def store(tmp_path):
    """Three seeds of one setting and a rival, all of one corpus, and a judge that learned from another."""
    data = toy.corpus(tmp_path)
    models = {digits: toy.pretrained(tmp_path, data, digits) for digits in (*SIBLINGS, RIVAL)}
    other = toy.corpus(tmp_path, "c0000002", name="others")
    judge = toy.put(tmp_path, "stages.toy.judge", JUDGE, "judge", {}, inputs={"corpus": [other]})
    return {"data": data, "models": models, "judge": judge}


def compare(tmp_path, store, digits="90000001", siblings=SIBLINGS, **options):
    trainings = {"ours": [store["models"][one] for one in siblings], "theirs": [store["models"][RIVAL]]}
    return toy.compared(tmp_path, store["data"], trainings, digits, judges=[store["judge"]], **options)


def published_of(tmp_path, store, digits=SIBLINGS[1]):
    return assemble(store["models"][digits], None, "me/toy", tmp_path / "out")


def figures(folder):
    """Value, n, whose it is, and how many seeds it is a mean over: of the model-index, then of metrics.json."""
    index = [
        (one.metric_value, one.metric_args["n"], one.metric_args["label"], one.metric_args.get("mean_over_seeds"))
        for one in ModelCard.load(folder / CARD).data.eval_results
        if "label" in one.metric_args
    ]
    rows = [
        (row["value"], row["n"], row["label"], len(row["of"]) if "of" in row else None)
        for row in json.loads((folder / "metrics.json").read_bytes())
        if "label" in row
    ]
    return index, rows


def test_of_a_comparison_the_model_shows_its_own_value_and_the_mean_that_it_is_part_of(tmp_path, store):
    comparison = compare(tmp_path, store)
    folder = published_of(tmp_path, store).folder
    expected = [(2.0, 500, "ours", None), (2.0, 3, "ours", 3)]
    assert figures(folder) == (expected, expected)
    text = (folder / CARD).read_text()
    row = "| bits | wiki-summaries-c0000001, test | 2 | bit/byte | 1.75 to 2.25 | 500 texts | lower | compare |"
    assert f"{row} 2 (0 to 9), 3 seeds |" in text
    assert "| mean over seeds |" in text
    assert "The mean over seeds is of models with the same settings" in text
    names = [one.metric_name for one in ModelCard(text).data.eval_results if "label" in one.metric_args]
    assert names == ["bits (bit/byte, n = 500 texts)", "bits, mean over 3 seeds (bit/byte, n = 3 seeds)"]
    alone, mean = json.loads((folder / "metrics.json").read_bytes())[-2:]
    assert (alone["seed"], alone["interval"], mean["interval"]) == (2, [1.75, 2.25], [0.0, 9.0])
    assert [one["artifact"][:8] for one in mean["of"]] == list(SIBLINGS)
    assert mean["artifact"] == comparison.fingerprint


def test_what_the_rivals_got_is_not_in_the_card(tmp_path, store):
    compare(tmp_path, store)
    folder = published_of(tmp_path, store).folder
    for name in (CARD, "metrics.json"):
        text = (folder / name).read_text()
        assert "theirs" not in text, name
        assert "claims_that_hold" not in text, name
        assert store["models"][RIVAL].fingerprint not in text, name
    assert "`compare` measured it beside 3 other model(s)." in (folder / CARD).read_text()


def test_a_single_training_has_one_row_and_no_mean(tmp_path, store):
    compare(tmp_path, store, siblings=SIBLINGS[:1])
    folder = published_of(tmp_path, store, SIBLINGS[0]).folder
    assert figures(folder)[1] == [(1.0, 500, "ours", None)]
    assert "mean over" not in (folder / CARD).read_text().lower()


def test_records_of_the_comparison_its_data_and_its_judge_go_along_and_those_of_the_rivals_stay(tmp_path, store):
    comparison = compare(tmp_path, store)
    assembled = published_of(tmp_path, store)
    records = load_provenance(assembled.folder)
    assert {one[:8] for one in records} == {SIBLINGS[1], "70000001", "c0000001", "90000001", JUDGE, "c0000002"}
    assert records[comparison.fingerprint] == comparison.record
    assert [line for line in problems(assembled) if "record" in line] == []
    shutil.rmtree(store["models"][RIVAL].path)  # nobody asks for it
    published_of(tmp_path, store)


@pytest.mark.parametrize("lost", ["toy.judge-a0000001", "text.corpus-c0000002", "text.tokenizer-70000001"])
def test_a_record_that_a_figure_or_the_model_needs_is_missed(tmp_path, store, lost):
    compare(tmp_path, store)
    assembled = published_of(tmp_path, store)
    (assembled.folder / "provenance" / f"{lost}.json").unlink()
    assert any(f"lacks the record of {lost.partition('-')[2]}" in line for line in problems(assembled))


def test_of_two_comparisons_that_differ_in_the_rivals_the_newer_one_counts(tmp_path, store):
    compare(tmp_path, store, "90000001", finished="2026-01-02T00:00:00+00:00")
    compare(tmp_path, store, "90000002", siblings=SIBLINGS[1:], finished="2026-01-03T00:00:00+00:00")
    _, rows = figures(published_of(tmp_path, store).folder)
    assert rows == [(1.0, 500, "ours", None), (1.5, 2, "ours", 2)]


def test_two_comparisons_on_different_data_both_count(tmp_path, store):
    compare(tmp_path, store)
    toy.compared(tmp_path, toy.corpus(tmp_path, "c0000003"), {"ours": [store["models"][SIBLINGS[1]]]}, "90000002")
    _, rows = figures(published_of(tmp_path, store).folder)
    assert [row[0] for row in rows] == [2.0, 2.0, 1.0]


def test_two_ways_to_use_one_model_are_told_apart(tmp_path, store):
    model = store["models"][SIBLINGS[1]]
    toy.compared(tmp_path, store["data"], {"drawn": [model], "drawn (mean)": [model]})
    titles = [one.metric_name for one in ModelCard.load(published_of(tmp_path, store).folder / CARD).data.eval_results]
    assert titles[-2:] == ["drawn: bits (bit/byte, n = 500 texts)", "drawn (mean): bits (bit/byte, n = 500 texts)"]


def test_a_yardstick_stands_in_the_text_as_one_and_not_in_the_index(tmp_path):
    rows = [toy.measure("bits_per_byte", 1.5), toy.measure("bits_per_byte_bigram", 1.25, title="bigram", yardstick=True)]
    files = toy.model_files("model")
    inputs = {"corpus": [toy.corpus(tmp_path)]}
    model = toy.put(tmp_path, "stages.text.pretrain", "b0000001", "causal_lm", files, inputs=inputs, metrics=rows)
    text = (assemble(model, None, "me/toy", tmp_path / "out").folder / CARD).read_text()
    assert [one.metric_type for one in ModelCard(text).data.eval_results] == ["bits_per_byte"]
    assert "| bigram (a yardstick, not this model) | wiki-summaries, test | 1.25 |" in text


def test_a_comparison_that_does_not_say_whom_it_measured_is_none_of_this_model(tmp_path, store):
    rows = [toy.measure("bits_per_byte", 7.0, label="ours")]
    inputs = {"models": [store["models"][SIBLINGS[1]], store["models"][RIVAL]], "corpus": [store["data"]]}
    toy.put(tmp_path, "stages.toy.compare", "90000001", "comparison", {}, inputs=inputs, metrics=rows)
    folder = published_of(tmp_path, store).folder
    assert figures(folder) == ([], [])
    assert not list((folder / "provenance").glob("toy.compare-*"))


def test_a_row_that_names_what_was_no_input_is_not_believed(tmp_path, store):
    model = store["models"][SIBLINGS[1]]
    rows = [toy.measure("bits_per_byte", 0.1, label="ours", of=[{"artifact": model.fingerprint, "value": 0.1, "n": 1}])]
    toy.put(tmp_path, "stages.toy.compare", "90000001", "comparison", {}, inputs={"corpus": [store["data"]]}, metrics=rows)
    assert figures(published_of(tmp_path, store).folder) == ([], [])


# ---- whoever pulls it


def compared_repository(folder):
    """A published model with a comparison in which a rival took part whose record is not there."""
    folder, record = published(folder)
    rival = record_of("stages.text.pretrain", "causal_lm", {}, {}, depth=7)
    judge = record_of("stages.toy.judge", "judge", {}, {})
    comparison = record_of("stages.toy.compare", "comparison", {"model": record, "rival": rival, "judge": judge}, {})
    rows = [toy.measure("loss", 1.0, of=[{"artifact": one.fingerprint, "value": 1.0}]) for one in (record, rival)]
    comparison = comparison.model_copy(update={"metrics": rows})
    for one in (judge, comparison):
        save_record(folder, one)
    return close(folder, record), record, comparison


def problems_of(folder):
    return provenance_problems(folder, Manifest.load(folder))


def test_a_rival_without_a_record_is_no_fault_of_what_was_pulled_but_a_lost_judge_is(tmp_path):
    folder, record, _ = compared_repository(tmp_path / "made")
    assert problems_of(folder) == []
    next((folder / "provenance").glob("toy.judge-*")).unlink()
    close(folder, record)
    (problem,) = problems_of(folder)
    assert "stages.toy.compare" in problem
    assert "the record of its judge" in problem


def test_a_model_cannot_call_its_own_ancestor_a_rival(tmp_path):
    folder, record, _ = compared_repository(tmp_path / "made")
    (corpus,) = record.inputs["corpus"]
    rows = [toy.measure("loss", 1.0, of=[{"artifact": corpus.fingerprint, "value": 1.0}])]
    save_record(folder, record.model_copy(update={"metrics": rows}))
    next((folder / "provenance").glob("text.corpus-*")).unlink()
    close(folder, record)
    assert any(line.startswith(f"record {record.stage}") and "its corpus" in line for line in problems_of(folder))


@pytest.mark.parametrize("said", [7, "x", {"artifact": "x"}, [7, None, {}], [["artifact", "x"]]])
def test_a_record_from_elsewhere_may_say_anything_of_whom_it_measured(said):
    record = record_of("stages.toy.compare", "comparison", {}, {})
    record = record.model_copy(update={"metrics": [toy.measure("loss", 1.0, of=said)]})
    assert subjects(record) == set()
    assert rows_about(record, "x") == []
