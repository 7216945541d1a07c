"""A corpus and a set of images from the Hub are read at the commit of their fingerprint, though the branch may have moved."""

from __future__ import annotations

import datasets
import pytest

from stages.image.dataset import card as image_card
from stages.image.dataset import sources as image_sources
from stages.text.corpus import card as text_card
from stages.text.corpus import sources as text_sources
from tests.harness import make_context


@pytest.mark.parametrize("wing", ["text", "image"])
def test_the_commit_of_the_fingerprint_is_read_not_the_branch(tmp_path, monkeypatch, wing):
    asked = []

    def load_dataset(repo, config, *, split, revision, streaming):
        asked.append((repo, revision))
        features = datasets.Features(
            {"text": datasets.Value("string"), "image": datasets.Image(), "label": datasets.Value("string")}
        )
        return datasets.IterableDataset.from_generator(lambda: iter(()), features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    facts = {"sources": [{"hub": "ada/data", "type": "dataset", "commit": "a" * 40}]}
    context = make_context(tmp_path / "out", facts=facts)
    if wing == "text":
        entry = text_card.SourceEntry(hub=text_card.Hub(repo="ada/data"))
        name, records = text_sources._open_entry(entry, None, None, context)
        assert list(records) == []
    else:
        entry = image_card.SourceEntry(hub=image_card.Hub(repo="ada/data"))
        name = image_sources._open_entry(entry, None, context).name
    assert asked == [("ada/data", "a" * 40)]
    if wing == "text":
        assert name == f"hub ada/data@{'a' * 40}"
