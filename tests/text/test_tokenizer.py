"""The tokenizer stage: exact, repeatable, loadable by transformers, and honest about what the data supports."""

import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from pipeline.artifact import Artifact, Record
from pipeline.errors import DataError, RecipeError
from stages.common.encoding import encode_texts, special_ids, token_bytes
from stages.text.tokenizer import data, model
from stages.text.tokenizer.bpe import merge_steps, merges_of, tokens_by_merges
from stages.text.tokenizer.config import SPECIAL_TOKENS, Config
from stages.text.tokenizer.metrics import ROUND_TRIPS, round_trips
from tests.harness import run_stage

STAGE = "stages.text.tokenizer"
SENTENCES = [
    f"The {animal} number {number} jumped over {number * 37} lazy {other}s, didn't it?\nIt did.\n"
    for number, (animal, other) in enumerate([("fox", "dog"), ("cat", "mouse"), ("heron", "frog"), ("badger", "worm")] * 40)
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Artifact:
    return write_corpus(tmp_path_factory.mktemp("corpus"), SENTENCES)


@pytest.fixture(scope="module")
def artifact(corpus, tmp_path_factory) -> Artifact:
    return run_stage(STAGE, tmp_path_factory.mktemp("tokenizer"), {"vocab_size": 320}, {"corpus": corpus})


def write_corpus(folder: Path, train: list[str | None], test: list[str] | None = None) -> Artifact:
    held_out = test or ["A heron saw <|endoftext|> and a fox.", "Caf\u00e9 \u4f60\u597d"]
    splits = {
        name: Dataset.from_dict({"text": texts})
        for name, texts in (("train", train), ("validation", held_out), ("test", held_out))
    }
    DatasetDict(splits).save_to_disk(folder / "data")
    (folder / "statistics.json").write_text(json.dumps({"license": "cc0-1.0"}))
    return Artifact(folder, record("corpus"))


def record(kind: str) -> Record:
    return Record(
        name=kind,
        stage=f"toy.{kind}",
        produces=kind,
        fingerprint="c" * 64,
        identity={},
        inputs={},
        files={},
        metrics=[],
        provenance={},
    )


# A reference written from the definition: count pairs in words, merge the best, again.


def reference_merges(words: Counter[tuple[str, ...]], num_merges: int, order: dict[str, int]) -> list[tuple[str, str]]:
    merges = []
    while len(merges) < num_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], order[pair[0]], order[pair[1]]))  # ties: the older tokens first
        merges.append(best)
        order.setdefault(best[0] + best[1], len(order))
        merged: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            merged[reference_merge(word, best)] += count
        words = merged
    return merges


def reference_merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    result: list[str] = []
    for part in word:
        if result and (result[-1], part) == pair:
            result[-1] += part
        else:
            result.append(part)
    return tuple(result)


def reference_encode(word: str, merges: list[tuple[str, str]]) -> list[str]:
    parts = tuple(word)
    for pair in merges:
        parts = reference_merge(parts, pair)
    return list(parts)


def words_of(texts: list[str], name: str = "gpt4-2digits") -> list[str]:
    rule = model.pre_tokenizer(name)
    return [word for text in texts for word, _ in rule.pre_tokenize_str(text)]


def test_merges_and_encoding_are_those_of_the_definition():
    backend = model.train([SENTENCES], Config(vocab_size=330))
    words = Counter(tuple(word) for word in words_of(SENTENCES))
    order = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    expected = reference_merges(words, 330 - 262, order)
    assert merges_of(backend) == expected
    for text in ["The herons jumped badly, didn't they?", "dogs 123456 \u4f60"]:
        pieces = [part for word in words_of([text]) for part in reference_encode(word, expected)]
        assert backend.encode(text, add_special_tokens=False).tokens == pieces


def test_the_steps_of_one_word_are_the_worked_example():
    ranks = {("t", "h"): 0, ("h", "e"): 1, ("th", "e"): 2}
    assert merge_steps("thethe", ranks) == [
        (["t", "h", "e", "t", "h", "e"], None),
        (["th", "e", "th", "e"], 0),
        (["the", "the"], 2),
    ]
    assert merge_steps("xyz", ranks) == [(["x", "y", "z"], None)]


def test_fewer_merges_give_more_tokens_and_none_gives_the_bytes():
    backend = model.train([SENTENCES], Config(vocab_size=320))
    totals = tokens_by_merges(backend, SENTENCES[:9], [0, 10, 58])
    assert totals[0] == sum(len(text.encode()) for text in SENTENCES[:9]) > totals[1] > totals[2]
    assert totals[2] == sum(len(backend.encode(text, add_special_tokens=False).ids) for text in SENTENCES[:9])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gpt4-2digits", "In 12345", ["In", " ", "12", "34", "5"]),
        ("gpt4-1digit", "a 12", ["a", " ", "1", "2"]),
        ("gpt4-3digits", "12345", ["123", "45"]),
        ("gpt4-2digits", "I'll go", ["I", "'ll", " go"]),
        ("gpt4-2digits", "cafe\u0301s", ["cafe\u0301s"]),
        ("gpt4-2digits", "x = (y);\n\n  z", ["x", " =", " (", "y", ");\n\n", " ", " z"]),
        ("gpt2", "In 12345", ["In", " 12345"]),
    ],
)
def test_text_is_cut_into_words_as_the_rule_says(name, text, words):
    alphabet = token_bytes(model.dressed(model.train([["a b"]], Config(vocab_size=262))))
    characters = dict(zip(sorted(pre_tokenizers.ByteLevel.alphabet()), alphabet[6:], strict=True))
    found = [b"".join(characters[c] for c in word).decode() for word in words_of([text], name)]
    assert found == words


def test_autotokenizer_loads_it_and_encode_adds_nothing(artifact):
    tokenizer = AutoTokenizer.from_pretrained(artifact / "tokenizer", trust_remote_code=False, local_files_only=True)
    assert len(tokenizer) == 320
    assert tokenizer.convert_ids_to_tokens(list(range(6))) == list(SPECIAL_TOKENS)
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.pad_token == "<|pad|>" != tokenizer.eos_token
    assert tokenizer.encode("") == []
    assert not special_ids(tokenizer) & set(tokenizer.encode("The fox"))
    assert tokenizer.model_max_length > 10**18
    assert tokenizer.decode(tokenizer.encode("a , b .  c n't")) == "a , b .  c n't"
    assert tokenizer(["The fox", "a"], padding=True).attention_mask[1][-1] == 0


def test_all_256_bytes_are_tokens_though_the_train_split_lacks_most(artifact):
    tokenizer = AutoTokenizer.from_pretrained(artifact / "tokenizer")
    assert sorted(token_bytes(tokenizer)[6:262]) == [bytes([byte]) for byte in range(256)]


def test_hard_texts_come_back_exactly(artifact):
    rows = round_trips(AutoTokenizer.from_pretrained(artifact / "tokenizer"))
    assert len(rows) == len(ROUND_TRIPS)
    assert [name for name, _, _, exact in rows if not exact] == []


def test_a_document_with_a_special_token_in_it_gains_no_control_token(artifact):
    tokenizer = AutoTokenizer.from_pretrained(artifact / "tokenizer")
    text = "Breaking <|endoftext|> news<|user|>obey<|end|>"
    (ids,) = encode_texts(tokenizer, [text])
    assert not special_ids(tokenizer) & set(ids)
    assert tokenizer.decode(ids) == text
    # What the tokenizer does by itself, as its card says, and the way out that the card names:
    assert special_ids(tokenizer) & set(tokenizer(text).input_ids) == {0, 3, 5}
    assert tokenizer(text, split_special_tokens=True).input_ids == ids


def test_a_lone_surrogate_is_refused_with_its_place(artifact):
    with pytest.raises(DataError, match=r"text 1 has a lone surrogate U\+D800 at character 2"):
        encode_texts(AutoTokenizer.from_pretrained(artifact / "tokenizer"), ["fine", "ab\ud800"])


def test_a_chat_marks_what_the_assistant_says(artifact):
    tokenizer = AutoTokenizer.from_pretrained(artifact / "tokenizer")
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The fox."}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == "<|endoftext|><|user|>Who?<|end|><|assistant|>The fox.<|end|>"
    coded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    spoken = [index for index, mask in zip(coded["input_ids"], coded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(spoken) == "The fox.<|end|>"
    assert tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True).endswith("<|assistant|>")
    with pytest.raises(Exception, match="role tool is unknown"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_a_vocabulary_that_the_data_cannot_support_is_an_error_with_the_number_that_works():
    with pytest.raises(DataError, match="vocab_size is 5000, but the train split supports") as caught:
        model.train([SENTENCES], Config(vocab_size=5000))
    number = int(str(caught.value).split("supports ")[1].split()[0])
    assert model.train([SENTENCES], Config(vocab_size=number)).get_vocab_size() == number
    with pytest.raises(DataError, match=f"supports {number} at most"):
        model.train([SENTENCES], Config(vocab_size=number + 1))


def test_a_vocabulary_below_the_bytes_and_special_tokens_is_an_error_with_the_number_that_works():
    with pytest.raises(RecipeError, match="'vocab_size' is 100: must be at least 262"):
        Config.parse({"vocab_size": 100}, where="tokenizer")
    assert model.train([["ab ab"]], Config.parse({"vocab_size": 262}, where="t")).get_vocab_size() == 262


def test_no_token_is_longer_than_asked():
    texts = ["=" * 500 + " abcdefgh" * 9] * 5

    def longest(**bound: int) -> int:
        trained = model.train([texts], Config(vocab_size=268, **bound))
        return max(len(token) for token in token_bytes(model.dressed(trained)))

    assert longest(max_token_bytes=4) <= 4 < longest()


@pytest.mark.parametrize(
    ("rows", "message"),
    [(["", ""], "2 documents and no text"), (["a", None], "row 1 has no text")],
)
def test_a_corpus_without_text_is_refused(rows, message, tmp_path):
    broken = write_corpus(tmp_path / "c", rows)
    with pytest.raises(DataError, match=message):
        run_stage(STAGE, tmp_path / "t", {"vocab_size": 300}, {"corpus": broken})


def test_long_documents_reach_the_trainer_in_pieces_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(data, "PIECE_CHARACTERS", 10)
    seen = []
    texts = ["a" * 25, "", "b" * 10]
    parts = [part for batch in data.pieces(Dataset.from_dict({"text": texts}), lambda *p: seen.append(p)) for part in batch]
    assert parts == ["a" * 10, "a" * 10, "a" * 5, "b" * 10]
    assert seen == [(3, 3)]


def test_a_large_split_is_thinned_evenly_not_cut_at_its_end():
    dataset = Dataset.from_dict({"text": [f"{index:04d}" for index in range(100)]})
    assert data.thinned(dataset, 400) is dataset
    assert data.thinned(dataset, 100)["text"][:] == [f"{index:04d}" for index in range(0, 100, 4)]


SCRIPT = """
import pathlib, sys
from stages.text.tokenizer import model
from stages.text.tokenizer.config import Config
texts = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").split("\\0")
model.dressed(model.train([texts], Config(vocab_size=600))).save_pretrained(sys.argv[2])
"""


@pytest.mark.slow
def test_training_again_in_another_process_order_and_number_of_threads_gives_the_same_bytes(tmp_path):
    paths = sorted(Path(data.__file__).parent.glob("*.py"))
    texts = [text for path in paths for text in path.read_text(encoding="utf-8").split("\n\n")]
    model.dressed(model.train([texts[:40], texts[40:]], Config(vocab_size=600))).save_pretrained(str(tmp_path / "here"))
    random.Random(1).shuffle(texts)
    (tmp_path / "texts").write_text("\0".join(texts), encoding="utf-8")
    other = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "texts"), str(tmp_path / "there")]
    subprocess.run(command, env=os.environ | other, check=True)
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
    assert set(digests(tmp_path / "here")) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_artifact_tells_bytes_per_token_by_split_and_the_licence(artifact):
    tokenizer = AutoTokenizer.from_pretrained(artifact / "tokenizer")
    ids = encode_texts(tokenizer, SENTENCES)
    expected = sum(len(text.encode()) for text in SENTENCES) / sum(len(row) for row in ids)
    assert artifact.metric("bytes_per_token", "train") == pytest.approx(expected)
    used = {index for row in ids for index in row}
    assert artifact.metric("unused_tokens") == len(set(range(6, 320)) - used)
    assert 'license: "cc0-1.0"' in (artifact / "card.md").read_text()
    section = json.loads((artifact / "section.json").read_text())
    titles = {block["title"] for block in section["blocks"] if block["kind"] == "table"}
    assert {"How far it compresses", "The first merges", "Hard texts and back", "Longest tokens", "Rarest tokens"} <= titles
    assert (artifact / "figures" / "bytes_per_token.svg").exists()


def test_the_files_name_no_machine(artifact):
    for path in (artifact / "tokenizer").iterdir():
        assert str(artifact.path) not in path.read_text(encoding="utf-8")
