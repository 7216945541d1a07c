"""Corpora and settings at the edge: refused records, next to no text, more processes than rows, values out of range."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.errors import DataError, RecipeError
from stages.common.corpus_io import load_split
from stages.common.packing import IGNORED, PackedRows, rows_of_step
from stages.common.token_store import write_token_store
from stages.text.finetune.config import Config as Finetune
from stages.text.pretrain.config import Config as Pretrain
from stages.text.tokenizer import model
from stages.text.tokenizer.config import Config as Tokenizer
from tests.harness import run_stage


def test_one_refused_record_stops_the_stage_and_leaves_no_data(tmp_path):
    rows = [{"text": f"document {index} of many"} for index in range(40)] + [{"text": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"a\.jsonl, row 41: column 'text' is null"):
        run_stage("stages.text.corpus", tmp_path / "corpus", {"files": str(tmp_path / "a.jsonl")})
    assert not (tmp_path / "corpus" / "data").exists()


def test_a_corpus_shorter_than_one_row_is_one_row_whose_rest_does_not_count(tmp_path):
    store = write_token_store(tmp_path / "s", [[[5, 6, 7]]], vocab_size=9)
    rows = PackedRows(store, context_length=16, seed=0, bos_id=0, eos_id=1)
    assert rows.num_rows == 1
    batch = rows.batch([0])
    assert batch.labels[0, :4].tolist() == [5, 6, 7, 1]
    assert (batch.labels[0, 4:] == IGNORED).all()
    assert rows.num_supervised([0]) == 4


def test_fewer_documents_than_processes_give_every_process_its_rows(tmp_path):
    store = write_token_store(tmp_path / "s", [[[5, 6, 7], [8]]], vocab_size=9)
    rows = PackedRows(store, context_length=16, seed=0, bos_id=0, eos_id=1)
    shared = {"rows_per_step": 4, "micro_batch_size": 1, "num_processes": 4}
    indices = [rows_of_step(0, process_index=process, **shared) for process in range(4)]
    assert [list(block[0]) for block in indices] == [[0], [1], [2], [3]]
    assert all(rows.num_supervised(block[0]) == 6 for block in indices)
    assert np.array_equal(np.sort(rows.batch([3]).labels[0]), np.sort(rows.batch([0]).labels[0])), "an epoch is all documents"


def test_a_split_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="no split 'validation' here; a corpus has train, validation, test"):
        load_split(tmp_path, "validation")


def test_a_chat_opens_with_the_start_token_once():
    tokenizer = model.dressed(model.train([["some text here"]], Tokenizer(vocab_size=262)))
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": ""}]
    ids = tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert tokenizer(text).input_ids == ids, "the tokenizer adds no second one"


@pytest.mark.parametrize(
    ("config", "values", "key"),
    [
        (Pretrain, {"micro_batch_size": 0}, "micro_batch_size"),
        (Pretrain, {"context_length": 1}, "context_length"),
        (Pretrain, {"num_steps": 0}, "num_steps"),
        (Pretrain, {"dtype": "float16"}, "dtype"),
        (Pretrain, {"muon_learning_rate": "1e-3"}, "muon_learning_rate"),
        (Pretrain, {"weight_decay": float("nan")}, "weight_decay"),
        (Finetune, {"r": 0}, "r"),
        (Finetune, {"learning_rate": -1.0}, "learning_rate"),
        (Finetune, {"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_a_value_out_of_range_names_its_key(config, values, key):
    with pytest.raises(RecipeError, match=f"key '{key}'"):
        config.parse(values, where="recipe")
