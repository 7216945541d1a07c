"""Packing: every token once per epoch, rows are pure functions of their index, documents do not see each other."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from pipeline.errors import DataError, StageError
from stages.common.guards import LEAK_TOLERANCE, check_isolation, isolation_error
from stages.common.packing import IGNORED, Batch, PackedRows, rows_of_step
from stages.common.token_store import write_token_store

BOS, EOS = 0, 1


@pytest.fixture
def documents():
    rng = np.random.default_rng(0)
    return [rng.integers(2, 50, size=n).tolist() for n in [3, 1, 0, 20, 7, 33, 2, 5, 8, 1]]


@pytest.fixture
def store(tmp_path, documents):
    return write_token_store(tmp_path / "s", [documents], vocab_size=50)


def make_rows(store, **options):
    return PackedRows(store, **({"context_length": 16, "seed": 3, "bos_id": BOS, "eos_id": EOS} | options))


def epoch(rows, number):
    return rows.batch(range(number * rows.num_rows, (number + 1) * rows.num_rows))


def documents_in(batch):
    """Read the documents back from the labels of a whole epoch."""
    labels = batch.labels.flatten()
    text = " ".join(str(int(label)) for label in labels[labels != IGNORED])
    return [part.split() for part in (text + " ").split(f" {EOS} ") if part]


@pytest.mark.parametrize("number", [0, 1, 5])
def test_an_epoch_supervises_every_document_and_its_end_exactly_once(store, documents, number):
    found = sorted([int(t) for t in d] for d in documents_in(epoch(make_rows(store), number)))
    assert found == sorted(d for d in documents if d)


def test_each_label_is_the_id_that_follows(store):
    batch = epoch(make_rows(store), 0)
    inputs, labels = batch.input_ids.flatten(), batch.labels.flatten()
    inner = (labels[:-1] != EOS) & (labels[:-1] != IGNORED)
    assert torch.equal(labels[:-1][inner], inputs[1:][inner])
    after_end = inputs[1:][(labels[:-1] == EOS) & (labels[1:] != IGNORED)]
    assert (after_end == BOS).all()


def test_positions_restart_with_each_document_and_each_row(store):
    batch = epoch(make_rows(store), 0)
    starts = batch.position_ids == 0
    assert starts[:, 0].all()
    assert starts[batch.input_ids == BOS].all()
    inside = batch.position_ids[:, 1:][~starts[:, 1:]]
    assert torch.equal(inside, (batch.position_ids[:, :-1] + 1)[~starts[:, 1:]])


def test_a_row_is_a_pure_function_of_seed_epoch_and_index(store):
    rows = make_rows(store)
    forwards = [rows.batch([i]).input_ids for i in range(3 * rows.num_rows)]
    backwards = [make_rows(store).batch([i]).input_ids for i in reversed(range(3 * rows.num_rows))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_epochs_and_seeds_differ_in_order(store):
    first, second = epoch(make_rows(store), 0), epoch(make_rows(store), 1)
    assert not torch.equal(first.input_ids, second.input_ids)
    assert not torch.equal(first.input_ids, epoch(make_rows(store, seed=4), 0).input_ids)


def test_supervised_tokens_are_known_without_building_rows(store):
    rows = make_rows(store)
    for index in range(2 * rows.num_rows):
        assert rows.num_supervised([index]) == int((rows.batch([index]).labels != IGNORED).sum())


def test_waste_is_what_the_rows_show(store):
    rows, batch = make_rows(store), epoch(make_rows(store), 0)
    waste = rows.waste()
    assert waste["padded_positions"] == int((batch.labels == IGNORED).sum())
    starts = int(((batch.position_ids == 0) & (batch.labels != IGNORED)).sum())
    continued = starts - int((batch.input_ids[batch.labels != IGNORED] == BOS).sum())
    assert continued >= waste["split_documents"] > 0


@pytest.mark.parametrize(("num_processes", "micro_batch_size"), [(1, 12), (1, 3), (2, 3), (2, 6), (3, 2), (4, 3), (12, 1)])
def test_the_stream_does_not_depend_on_processes_or_accumulation(num_processes, micro_batch_size):
    for step in (0, 1, 7):
        blocks = [
            rows_of_step(step, rows_per_step=12, micro_batch_size=micro_batch_size, process_index=p, num_processes=num_processes)
            for p in range(num_processes)
        ]
        assert len({len(block) for block in blocks}) == 1
        assert sorted(i for block in blocks for rows in block for i in rows) == list(range(12 * step, 12 * step + 12))


@pytest.mark.parametrize("context_length", [0, 1])
def test_a_row_that_cannot_predict_is_refused(store, context_length):
    with pytest.raises(DataError, match="context_length"):
        make_rows(store, context_length=context_length)


SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "qwen3": Qwen3Config(**SHAPE, num_key_value_heads=1, head_dim=16, intermediate_size=48),
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=2, intermediate_size=48),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=64),
}


@pytest.fixture(params=CONFIGS)
def model(request):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[request.param], attn_implementation="sdpa")


def test_packed_documents_have_the_logits_they_have_alone(model, store):
    batch = epoch(make_rows(store), 0)
    assert isolation_error(model.eval(), batch) < 1e-4
    assert check_isolation(model, batch) < 1e-4


def test_the_proof_of_isolation_sees_rows_that_are_joined(model, store):
    batch = epoch(make_rows(store), 0)
    flat = Batch(batch.input_ids, batch.labels, torch.arange(16).expand_as(batch.input_ids))
    positions = batch.position_ids

    class Joined(torch.nn.Module):
        def forward(self, input_ids, position_ids, use_cache):
            return model(input_ids=input_ids, position_ids=None, use_cache=use_cache)

    assert isolation_error(Joined(), Batch(flat.input_ids, flat.labels, positions)) > 10 * LEAK_TOLERANCE


@pytest.mark.parametrize("fault", ["mask", "cache"])
def test_an_all_ones_mask_or_a_cache_breaks_isolation_and_is_refused(model, store, fault):
    original = model.forward

    def faulty(input_ids, position_ids, use_cache):
        options = {"mask": {"attention_mask": torch.ones_like(input_ids)}, "cache": {"use_cache": True}}[fault]
        return original(input_ids=input_ids, position_ids=position_ids, **({"use_cache": use_cache} | options))

    model.forward = faulty
    with pytest.raises(StageError, match="packed documents see each other"):
        check_isolation(model, epoch(make_rows(store), 0))


def test_isolation_is_proved_on_a_model_whose_attention_is_still_zero(store):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS["qwen3"])
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert check_isolation(model, epoch(make_rows(store), 0)) < 1e-4
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
