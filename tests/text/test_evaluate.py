"""The evaluate stage on a toy model: its figures are the definitions', and it refuses what would mislead."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from pipeline.artifact import Artifact, Record
from pipeline.errors import DataError, RecipeError, StageError
from stages.text.evaluate import metrics
from stages.text.evaluate.config import Config
from stages.text.evaluate.data import equally_long, prompts, spread
from stages.text.evaluate.report import by_position
from tests.harness import run_stage

STAGE = "stages.text.evaluate"
WORDS = [first + last for first in ("ba", "do", "ki", "ru", "sa", "te") for last in ("ng", "rro", "x")]
QUICK = {"num_samples": 4, "prompt_words": 3, "max_new_tokens": 40, "max_documents": 6, "batch_size": 3}


def sentences(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size=25)) + "." for _ in range(count)]


def artifact(folder: Path, kind: str) -> Artifact:
    record = Record(
        name=kind, stage=f"toy.{kind}", produces=kind, fingerprint=kind[0] * 64, identity={}, inputs={}, files={}, metrics=[],
        provenance={},
    )  # fmt: skip
    return Artifact(folder, record)


def write_corpus(folder: Path, *, train: list[str] | None = None, test: list[str] | None = None) -> Artifact:
    splits = {"train": train or sentences(30, 0), "validation": sentences(5, 1), "test": test or sentences(9, 2)}
    DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in splits.items()}).save_to_disk(folder / "data")
    (folder / "statistics.json").write_text(json.dumps({"license": "cc0-1.0"}))
    return artifact(folder, "corpus")


def write_model(folder: Path, *, positions: int = 64, uniform: bool = False, rows: int = 258) -> Artifact:
    """A byte-per-token model with random weights."""
    tokens = ["<|endoftext|>", "<|pad|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tokens[0], bos_token=tokens[0], pad_token=tokens[1])
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
    config = Qwen3Config(
        vocab_size=rows, num_key_value_heads=1, max_position_embeddings=positions, tie_word_embeddings=False, **shape
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(0 if uniform else 4)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return artifact(folder, "model")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Artifact:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Artifact:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def evaluation(corpus, model, tmp_path_factory) -> Artifact:
    inputs = {"model": model, "corpus": corpus, "train": [corpus, corpus]}
    return run_stage(STAGE, tmp_path_factory.mktemp("evaluation"), QUICK, inputs)


def blocks(found: Artifact, kind: str) -> list[dict]:
    return [block for block in json.loads((found / "section.json").read_text())["blocks"] if block["kind"] == kind]


def test_a_model_that_knows_nothing_needs_log2_of_its_vocabulary_per_byte(tmp_path, corpus):
    uniform = write_model(tmp_path / "m", uniform=True)
    found = run_stage(STAGE, tmp_path / "e", QUICK | {"num_samples": 0}, {"model": uniform, "corpus": corpus})
    for split in ("validation", "test"):  # one byte is one token here
        assert found.metric("bits_per_byte", split) == pytest.approx(math.log2(258), rel=1e-6)
        assert found.metric("nats_per_token", split) == pytest.approx(math.log(258), rel=1e-6)
        assert found.metric("perplexity", split) == pytest.approx(258, rel=1e-5)


def test_every_figure_says_on_how_much_it_stands(evaluation):
    rows = {(row["name"], row["split"]): row for row in evaluation.record.metrics}
    headline = rows["bits_per_byte", "test"]
    assert headline["n"] == 6
    assert headline["items"] == "documents"
    assert headline["interval"][0] < headline["value"] < headline["interval"][1]
    assert rows["bits_per_byte", "validation"]["n"] == 5
    names = {name for name, _ in rows}
    assert {"repeated_4", "distinct_2", "novel_4", "novel_8", "longest_copy_words", "contaminated_share"} <= names
    assert {"batch_logit_difference", "batch_bits_per_byte_difference"} <= names


def test_samples_stand_beside_the_real_continuation(evaluation):
    rows = [json.loads(line) for line in (evaluation / "samples" / "samples.jsonl").read_text().splitlines()]
    texts = sentences(9, 2)
    assert len(rows) == 4
    for row in rows:
        assert len(row["prompt"].split()) == 3
        assert any(text.startswith(row["prompt"] + row["real"]) for text in texts)
        assert len(row["real"]) == 40  # tokens are bytes here
    assert len({row["generated"] for row in rows}) == 4


def test_the_same_evaluation_twice_gives_the_same_files(evaluation, corpus, model, tmp_path):
    again = run_stage(STAGE, tmp_path, QUICK, {"model": model, "corpus": corpus, "train": [corpus, corpus]})
    for name in ("samples/samples.jsonl", "metrics.json", "section.json", "card.md", "figures/perplexity_by_position.svg"):
        assert (again / name).read_bytes() == (evaluation / name).read_bytes()


def test_batch_size_changes_no_figure(evaluation, corpus, model, tmp_path):
    alone = run_stage(STAGE, tmp_path, QUICK | {"batch_size": 1}, {"model": model, "corpus": corpus})
    for split in ("validation", "test"):
        assert alone.metric("bits_per_byte", split) == pytest.approx(evaluation.metric("bits_per_byte", split), abs=1e-6)


def test_a_model_whose_result_depends_on_the_batch_is_an_error(corpus, model, tmp_path, monkeypatch):
    def leaky(self, input_ids, **options):
        output = forward(self, input_ids=input_ids, **options)
        output.logits = output.logits + 0.01 * input_ids.shape[1]
        return output

    forward = Qwen3ForCausalLM.forward
    monkeypatch.setattr(Qwen3ForCausalLM, "forward", leaky)
    documents = write_corpus(tmp_path / "c", test=["a fox", *sentences(4, 2)])
    with pytest.raises(StageError, match=r"batch size 1 and 3 differ by .* above logit_tolerance"):
        run_stage(STAGE, tmp_path / "e", QUICK, {"model": model, "corpus": documents})


@pytest.mark.slow
def test_test_documents_in_the_training_texts_are_an_error_that_names_the_first(model, tmp_path):
    held_out = sentences(9, 2)
    leaked = write_corpus(tmp_path / "c", train=[*sentences(5, 7), "Chapter one: " + held_out[4] + " The end."], test=held_out)
    settings = QUICK | {"max_documents": None}
    with pytest.raises(DataError, match=r"1 of 9 test documents are in the training texts \(document 4 is"):
        run_stage(STAGE, tmp_path / "e", settings, {"model": model, "corpus": leaked, "train": leaked})
    found = run_stage(
        STAGE, tmp_path / "f", settings | {"max_contaminated_share": 0.2}, {"model": model, "corpus": leaked, "train": leaked}
    )
    assert found.metric("contaminated_share") == pytest.approx(1 / 9)


def test_half_of_a_document_counts_as_seen_and_a_short_one_never():
    words = [f"w{number}" for number in range(60)]
    text = " ".join(words)
    training = [" ".join(words[:37])]  # 25 of 48 runs of 13 words
    assert metrics.contaminated([text, "w1 w2 w3"], training).tolist() == [True, False]
    assert metrics.contaminated([text], [" ".join(words[:35])]).tolist() == [False]


def test_without_training_texts_novelty_is_left_out_not_made_up(corpus, model, tmp_path):
    found = run_stage(STAGE, tmp_path, QUICK, {"model": model, "corpus": corpus})
    names = {row["name"] for row in found.record.metrics}
    assert not names & {"novel_4", "longest_copy_words", "contaminated_share"}
    assert "repeated_4" in names


def test_the_report_shows_prediction_samples_and_where_context_stops_helping(evaluation):
    titles = [block["title"] for block in blocks(evaluation, "table")]
    assert titles == ["How well it predicts", "Repetition", "Novelty"]
    (shown,) = blocks(evaluation, "samples")
    assert len(shown["rows"]) == 4
    assert [block["path"] for block in blocks(evaluation, "figure")] == [
        "figures/bits_per_byte.svg",
        "figures/perplexity_by_position.svg",
    ]
    assert 'license: "cc0-1.0"' in (evaluation / "card.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"context_length": 65}, "context_length is 65: it must be from 1 to the model's 64 positions"),
        ({"prompt_words": 9}, "prompt_words is 9, but none of the 6 documents has 27 words"),
        ({"context_length": 8}, "prompt_words=3 makes .* tokens; the context has 8"),
    ],
)
def test_settings_that_do_not_fit_the_model_or_the_texts_are_refused(values, message, corpus, model, tmp_path):
    with pytest.raises(DataError, match=message):
        run_stage(STAGE, tmp_path, QUICK | values, {"model": model, "corpus": corpus})


def test_a_tokenizer_larger_than_the_model_is_refused(corpus, tmp_path):
    small = write_model(tmp_path / "m", rows=200)
    with pytest.raises(DataError, match="the tokenizer has 258 tokens, the model's embedding 200 rows"):
        run_stage(STAGE, tmp_path / "e", QUICK, {"model": small, "corpus": corpus})


@pytest.mark.parametrize("splits", [[], ["test", "test"], ["train"]])
def test_splits_are_named_once_and_never_the_train_split(splits):
    with pytest.raises(RecipeError, match="splits"):
        Config.parse({"splits": splits}, where="evaluate")


def test_documents_and_prompts_are_taken_at_even_distances():
    dataset = Dataset.from_dict({"text": [f"d{number} b c d e f" for number in range(10)]})
    assert [text[:2] for text in spread(dataset, 4)] == ["d0", "d3", "d6", "d9"]
    assert spread(dataset, None) == spread(dataset, 99) == dataset["text"][:]
    found = prompts([*dataset["text"], "too short"], 2, 2)
    assert [(prompt.text, prompt.truth) for prompt in found] == [("d0 b", " c d e f"), ("d9 b", " c d e f")]


def test_texts_are_compared_at_equal_length():
    assert equally_long([" a b c.", "x", ""], ["d e", "y, z", "w"]) == ([" a b", "x"], ["d e", "y"])


def test_perplexity_by_position_is_the_mean_of_its_bin_and_skips_what_was_not_seen():
    nll, count = np.array([2.0, 6.0, 3.0, 0.0]), np.array([1, 2, 1, 0])
    positions, values = by_position(nll, count, bins=40)
    np.testing.assert_allclose(values, np.exp([2, 3, 3]))
    assert positions == [1.0, 2.0, 3.0]
    merged = by_position(nll, count, bins=1)[1]
    assert merged == [pytest.approx(math.exp(11 / 4))]
