"""The card: metadata that the Hub's own classes read, and text in which nothing of others can become markup."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from pipeline.errors import DataError
from stages.common.release.layout import CARD
from stages.release.publish.assemble import assemble
from stages.release.publish.licence import licence_of as combine
from stages.release.publish.licence import names_of
from stages.release.publish.markdown import code, plain, table
from tests.release import toy_store as toy

HOSTILE = "](http://evil) <script>alert(1)</script> ![x](y) | `tick` *bold*\n---\n# heading {{x}} www.evil.org me@evil.org"


@pytest.fixture
def model(tmp_path):
    return toy.pretrained(tmp_path, toy.corpus(tmp_path))


def licence_of(data, others, stated):
    names = names_of(data)
    return combine({names[one.fingerprint]: one for one in data}, others, stated)


def card_of(tmp_path, artifact, **options):
    return (assemble(artifact, options.pop("part", None), "me/toy", tmp_path / "out", **options).folder / CARD).read_text()


def test_the_hubs_own_classes_read_every_evaluation_with_data_split_value_and_n(tmp_path, model):
    toy.evaluated(tmp_path, model, toy.corpus(tmp_path, "c0000002", own=True, name="poems"))
    data = ModelCard(card_of(tmp_path, model)).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-generation", "cc-by-sa-4.0")
    found = {
        (one.metric_type, one.dataset_name, one.dataset_split, one.metric_value, one.metric_args["n"])
        for one in data.eval_results
    }
    assert found == {("bits_per_byte", "wiki-summaries", "test", 1.5, 5), ("perplexity", "poems", "validation", 1.25, 77)}
    assert next(one for one in data.eval_results if one.metric_type == "bits_per_byte").metric_args["interval_95"] == [1.4, 1.6]


def test_sizes_and_costs_are_no_evaluations_but_stand_in_the_text(tmp_path, model):
    text = card_of(tmp_path, model)
    assert {one.metric_type for one in ModelCard(text).data.eval_results} == {"bits_per_byte"}
    assert "1,000 parameters" in text
    assert "| pretrain | 7 s |  |  | 2e+12 | Toy CPU (2 cores), 1 process(es), no GPU |" in text


def test_two_corpora_out_of_one_card_are_two_data_sets(tmp_path, model):
    toy.evaluated(tmp_path, model, toy.corpus(tmp_path, "c0000002"))
    results = ModelCard(card_of(tmp_path, model)).data.eval_results
    assert {one.dataset_type for one in results} == {"wiki-summaries-c0000001", "wiki-summaries-c0000002"}


def test_every_setting_and_every_fingerprint_is_told(tmp_path, model):
    text = card_of(tmp_path, model)
    for key, value in model.record.config.items():
        assert f"| `{key}` | `{json.dumps(value)}` |" in text
    assert "| model: width | `128` |" in text, "what depth stands for is told, too"
    for digits in ("c0000001", "70000001", "b0000001"):
        assert f"`{digits.ljust(64, '0')}`" in text


def test_an_adapter_is_tied_to_its_base_in_the_metadata(tmp_path, model):
    tuned = toy.finetuned(tmp_path, model, toy.corpus(tmp_path, "c0000002"))
    text = card_of(tmp_path, tuned, part="adapter", base_repo="me/base@v1")
    data = ModelCard(text).data
    assert (data.library_name, data.base_model, data.base_model_relation) == ("peft", "me/base", "adapter")
    assert 'from_pretrained("me/base", revision="v1")' in text
    assert "ee" * 32 in text


def test_a_corpus_gets_a_data_card_that_says_where_its_splits_lie(tmp_path):
    data = DatasetCard(card_of(tmp_path, toy.corpus(tmp_path))).data
    assert (data.license, data.size_categories) == ("cc-by-sa-4.0", ["n<1K"])
    assert data.configs[0]["data_files"][0] == {"split": "train", "path": "data/train-*.parquet"}


def test_text_of_others_stays_text(tmp_path):
    data = toy.corpus(tmp_path, own=True, name=HOSTILE)
    model = toy.pretrained(tmp_path, data, caption=HOSTILE, prompts=[HOSTILE])
    text = card_of(tmp_path, model)
    _, front, body = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["dataset"]["name"] == HOSTILE
    outside = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", body, flags=re.DOTALL)  # what stands in code is never markup
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\((?!figures/)", outside)
    assert "http:" not in outside
    assert "www." not in outside
    assert "me@evil" not in outside
    assert not re.search(r"^# heading|^---", outside, re.MULTILINE)
    rows = [line for line in body.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert all(width in (3, 5, 6, 7, 9) for width in widths)  # a bar out of the text would add a column


@pytest.mark.parametrize("text", ["`", "``a`", "a`b``c", "|", "\\|", "a\nb", "\x1b[31m", "\u202egnp"])
def test_a_span_of_code_ends_where_it_should(text):
    span = code(text)
    fence = re.match("`+", span)[0]
    assert span.endswith(fence)
    assert fence not in span[len(fence) : -len(fence)]
    assert "\n" not in span
    assert "\x1b" not in span
    assert "\u202e" not in span
    assert not re.search(r"(?<!\\)\|", span)


def test_plain_words_stay_readable():
    assert plain("bits-per-byte (95 %), 1.5!") == "bits-per-byte (95 %), 1.5!"
    assert table(["a"], [[plain("x|y")]]) == "| a |\n|---|\n| x\\|y |"


def test_one_licence_goes_by_its_name_and_two_are_named_together(tmp_path):
    first = toy.corpus(tmp_path, "c0000001", own=True, name="a", licence="mit")
    second = toy.corpus(tmp_path, "c0000002", own=True, name="b", licence="cc-by-sa-4.0")
    assert licence_of([first], {}, None).license == "mit"
    both = licence_of([first, second], {}, None)
    assert (both.license, both.name) == ("other", "cc-by-sa-4.0-and-mit")
    assert both.by_data == {"a": "mit", "b": "cc-by-sa-4.0"}
    assert both.problems(redistributes=True) == []


def test_two_texts_of_one_name_keep_their_two_licences(tmp_path):
    first = toy.corpus(tmp_path, "c0000001", own=True, licence="mit")
    second = toy.corpus(tmp_path, "c0000002", own=True, licence="not stated")
    found = licence_of([first, second], {}, None)
    assert found.by_data == {"corpus-c0000001": "mit", "corpus-c0000002": "not stated"}
    assert len(found.problems(redistributes=False)) == 1


def test_the_licence_of_a_base_from_elsewhere_is_carried_on(tmp_path):
    found = licence_of([toy.corpus(tmp_path, own=True, name="a", licence="mit")], {"base x/y": "gemma"}, None)
    assert (found.license, found.name) == ("other", "gemma-and-mit")


def test_a_licence_that_is_not_stated_is_asked_for_and_a_given_one_is_marked_as_such(tmp_path):
    data = toy.corpus(tmp_path, own=True, name="poems", licence="not stated")
    assert "that of 'poems' is not stated" in licence_of([data], {}, None).problems(redistributes=False)[0]
    given = licence_of([data], {}, "mit")
    assert (given.license, given.assumed, given.problems(redistributes=True)) == ("mit", ("poems",), [])
    assert "Stated by the publisher, not by the records: poems." in given.text()
    with pytest.raises(DataError, match="not a name that the Hub knows"):
        licence_of([data], {}, "do-what-you-like")


def test_a_stated_licence_never_replaces_a_recorded_one(tmp_path):
    assert licence_of([toy.corpus(tmp_path, licence="cc-by-sa-4.0")], {}, "mit").license == "cc-by-sa-4.0"


@pytest.mark.parametrize("name", ["cc-by-nd-4.0", "proprietary"])
def test_data_that_may_not_be_passed_on_are_refused_though_a_model_of_them_is_not(tmp_path, name):
    found = licence_of([toy.corpus(tmp_path, licence=name)], {}, None)
    assert "not known to let others pass the data on" in found.problems(redistributes=True)[0]
    assert found.problems(redistributes=False) == []
