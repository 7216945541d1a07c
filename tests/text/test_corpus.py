"""The corpus stage as a whole: what goes in, what comes out, what never changes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pipeline.artifact import Artifact, differences, manifest
from pipeline.errors import DataError, RecipeError
from stages.common.corpus_io import SPLITS, license_of, load_split, statistics_of
from stages.common.xz import xz_bits_per_byte
from stages.text.corpus.config import Config
from stages.text.corpus.origin import open_origin
from stages.text.corpus.run import build
from stages.text.corpus.spool import content_hash, split_of
from tests.harness import make_context, run_stage

STAGE = "stages.text.corpus"
WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "inlet",
    "jetty",
    "knoll",
    "larch",
    "marsh",
    "north",
    "ocean",
    "pine",
    "quay",
    "reef",
]


def documents(count: int, seed: int = 0) -> list[str]:
    """Return `count` unlike texts of 20 to 60 words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(20, 60))) + f" {seed}-{i}." for i in range(count)]


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def config_of(source: Path | list[Path], **values: object) -> Config:
    files = [str(path) for path in source] if isinstance(source, list) else str(source)
    split = {"validation_fraction": 0.2, "test_fraction": 0.2, "min_split_documents": 1}
    return Config.parse({"files": files, **split, **values}, where="test")


def corpus(tmp_path: Path, source: Path | list[Path], name: str = "corpus", **values: object) -> Artifact:
    """Run the whole stage."""
    return run_stage(STAGE, tmp_path / name, config_of(source, **values).model_dump(mode="json"))


def data(tmp_path: Path, source: Path | list[Path], name: str = "corpus", **values: object) -> Path:
    """Write the data only, without report and figure, which take most of the time of a small corpus."""
    config, context = config_of(source, **values), make_context(tmp_path / name)
    build(config, context, open_origin(config, context))
    return context.directory


def hashes(artifact: Artifact) -> dict[str, str]:
    """Return {file: sha256} of all that the stage itself wrote; the log of events holds times."""
    return {name: entry.sha256 for name, entry in manifest(artifact.path).items() if name != "events.jsonl"}


def texts_of(artifact: Artifact | Path) -> dict[str, list[str]]:
    return {split: list(load_split(artifact, split)["text"]) for split in SPLITS}


def test_every_document_lands_in_the_split_its_hash_names(tmp_path):
    wanted = documents(60)
    found = texts_of(data(tmp_path, write_jsonl(tmp_path / "a.jsonl", wanted)))
    assert sorted(text for texts in found.values() for text in texts) == sorted(wanted)
    for split, texts in found.items():
        assert {split_of(content_hash(text), validation=0.2, test=0.2) for text in texts} == {split}


def test_the_same_files_give_the_same_bytes(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", documents(40))
    first, second = corpus(tmp_path, source, "first"), corpus(tmp_path, source, "second")
    assert hashes(first) == hashes(second)


def test_the_order_and_names_of_files_and_rows_change_no_byte_of_the_data(tmp_path):
    texts = documents(40)
    whole = write_jsonl(tmp_path / "z.jsonl", texts)
    halves = [write_jsonl(tmp_path / "b.jsonl", texts[:11:-1]), write_jsonl(tmp_path / "a.jsonl", texts[:12])]
    first, second = data(tmp_path, whole, "first"), data(tmp_path, halves, "second")
    files = [{name: entry.sha256 for name, entry in manifest(folder / "data").items()} for folder in (first, second)]
    assert files[0] == files[1]
    assert len(files[0]) >= 7


def test_more_documents_move_none_of_the_earlier_ones(tmp_path):
    early, late = documents(40), documents(40, seed=1)
    before = texts_of(data(tmp_path, write_jsonl(tmp_path / "a.jsonl", early), "before"))
    after = texts_of(data(tmp_path, write_jsonl(tmp_path / "b.jsonl", late + early), "after"))
    for split in SPLITS:
        assert set(before[split]) <= set(after[split])


def test_exact_and_near_copies_are_removed_and_counted(tmp_path):
    texts = documents(40)
    long = " ".join(f"word{i}" for i in range(200))
    source = write_jsonl(tmp_path / "a.jsonl", [*texts, *texts[:5], long, long + " more", "Nearly " + long])
    artifact = corpus(tmp_path, source)
    assert statistics_of(artifact)["removed"] == {"exact_copies": 5, "near_copies": 2}
    assert sum(len(texts) for texts in texts_of(artifact).values()) == 41


def test_text_that_looks_like_markup_or_control_passes_unharmed(tmp_path):
    hard = [
        "<script>alert('x')</script> & <b>bold</b>",
        "---\nlicense: stolen\n---\nfront matter",
        "<|endoftext|> and <|user|> are words here <|pad|>",
        "e\u0301 becomes \u00e9? no: this file keeps NFD",
        "\u200bzero\u200dwidth, \u202eright to left\u202c, 👩\u200d👩\u200d👧, 𠮷野家",
        "  leading and trailing blanks stay  ",
        "{{ config }} {% raw %} \\n `code` | table |",
    ]
    source = write_jsonl(tmp_path / "a.jsonl", [*documents(40), *hard])
    found = texts_of(data(tmp_path, source, normalization="none"))
    assert set(hard) <= {text for texts in found.values() for text in texts}


def test_one_plain_text_file_of_a_megabyte_fills_three_splits(tmp_path):
    draw = random.Random(1)
    paragraphs = [" ".join(draw.choices(WORDS, k=60)) for _ in range(2500)]
    (tmp_path / "my.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    artifact = run_stage(STAGE, tmp_path / "corpus", {"files": str(tmp_path / "my.txt"), "card": "wiki-summaries"})
    sizes = {split: len(texts) for split, texts in texts_of(artifact).items()}
    assert sizes["validation"] > 10
    assert sizes["test"] > 10
    together = "".join(text for texts in texts_of(artifact).values() for text in texts)
    assert sum(map(len, paragraphs)) <= len(together) < 1.01 * sum(map(len, paragraphs))


def test_files_go_before_the_card_and_need_none():
    assert Config(card="wiki-summaries", files="my.txt").sources() == Config(files="my.txt").sources()
    assert "files" not in Config(files="my.txt").identity()
    with pytest.raises(RecipeError, match="nothing to read: give 'card'"):
        Config.parse({}, where="recipe")


@pytest.mark.parametrize("content", ["", "\n\n  \n", "one document\n"])
def test_a_corpus_too_small_for_three_splits_is_refused_with_the_numbers(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(DataError, match=r"too small: train \d+, validation \d+, test \d+ documents; at least 4"):
        run_stage(STAGE, tmp_path / "corpus", {"files": str(tmp_path / "a.txt")})


def test_train_text_inside_test_documents_is_refused(tmp_path):
    shared = " ".join(f"common{i}" for i in range(60))
    texts = [f"{shared} {text}" for text in documents(40)]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    with pytest.raises(DataError, match="can be found again in train; max_overlap allows 5.0%"):
        data(tmp_path, source, near_duplicate_threshold=None)
    data(tmp_path, source, "let", near_duplicate_threshold=None, max_overlap=1.0)


def test_max_documents_stops_early(tmp_path):
    artifact = data(tmp_path, write_jsonl(tmp_path / "a.jsonl", documents(200)), max_documents=50)
    assert sum(len(texts) for texts in texts_of(artifact).values()) == 50


def test_the_licence_the_numbers_and_the_samples_are_carried(tmp_path):
    artifact = corpus(tmp_path, write_jsonl(tmp_path / "a.jsonl", documents(60)), license="cc0-1.0", num_samples=3)
    assert license_of(artifact) == "cc0-1.0"
    assert 'license: "cc0-1.0"' in (artifact / "card.md").read_text()
    sizes = {split: len(texts) for split, texts in texts_of(artifact).items()}
    assert sizes == {split: artifact.metric("documents", split) for split in SPLITS}
    text = "".join(texts_of(artifact)["train"])
    assert artifact.metric("bytes", "train") == len(text.encode())
    assert artifact.metric("xz_bits_per_byte", "test") == xz_bits_per_byte(texts_of(artifact)["test"])
    assert len((artifact / "samples/documents.jsonl").read_text().splitlines()) == 3
    assert (artifact / "figures/lengths.svg").stat().st_size > 1000
    assert not list(artifact.path.glob(".spool*"))


def test_no_machine_path_enters_the_artifact(tmp_path):
    artifact = corpus(tmp_path, write_jsonl(tmp_path / "a.jsonl", documents(60)))
    for path in artifact.path.rglob("*"):
        if path.is_file() and path.name != "record.json":  # the test harness writes that one
            assert str(tmp_path).encode() not in path.read_bytes(), path


def test_work_on_the_rows_of_a_corpus_leaves_it_as_it_was(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"Number {n} of many, {n * 7919} in all." for n in range(60)))
    values = {"files": str(tmp_path / "a.txt"), "documents": "paragraph", "near_duplicate_threshold": None, "max_overlap": 1.0}
    artifact = run_stage("stages.text.corpus", tmp_path / "corpus", values | {"validation_fraction": 0.2, "test_fraction": 0.2})
    load_split(artifact, "train").map(lambda row: {"text": row["text"].upper()}).filter(lambda row: row["text"]).shuffle(seed=1)
    assert differences(artifact.path, artifact.record) == []
