"""The loop itself, on a toy model: stop and go on bit for bit, agree on the plan, leave no trace of timing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.nn import functional as F

from pipeline.errors import Diverged, Interrupted, StageError
from stages.common.optimizers import Muon, adamw
from stages.common.packing import PackedRows
from stages.common.token_store import write_token_store
from stages.common.training import Training, TrainingPlan
from tests.harness import make_context

PLAN = TrainingPlan(
    num_steps=9, warmup_steps=2, cooldown_steps=4, rows_per_step=4, micro_batch_size=2, max_gradient_norm=0.5, seed=3
)


class Toy(torch.nn.Module):
    """A bigram model with dropout, so that the randomness of a step matters as well."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20)

    def forward(self, input_ids, labels, position_ids, scale):
        hidden = F.dropout(self.table(input_ids), 0.2)
        return F.cross_entropy(self.head(hidden).flatten(0, 1), labels.flatten(), reduction="sum") * scale


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    rng = np.random.default_rng(0)
    documents = [rng.integers(2, 20, size=n).tolist() for n in rng.integers(1, 30, size=12)]
    store = write_token_store(tmp_path_factory.mktemp("store") / "s", [documents], vocab_size=20)
    return PackedRows(store, context_length=16, seed=3, bos_id=0, eos_id=1)


def make_training(directory, rows, plan=PLAN, *, evaluate=None, **identity):
    model = Toy()
    tables = {"params": [model.table.weight, model.head.bias], "lr": 0.01, "weight_decay": 0.0}
    return Training(
        context=make_context(directory),
        accelerator=Accelerator(cpu=True, mixed_precision="no"),
        model=model,
        module=model,
        optimizers=[Muon([model.head.weight], lr=0.02, weight_decay=0.1), adamw([tables], betas=(0.9, 0.95))],
        rows=rows,
        plan=plan,
        identity=identity,
        evaluate=evaluate,
    )


def weights_after(training):
    training.run()
    return {name: value.detach().clone() for name, value in training.model.named_parameters()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def stop_during(training, step):
    original = training._gradients

    def gradients(at, num_tokens):
        training.context._stop_signal = 15 * (at + 1 == step)
        return original(at, num_tokens)

    training._gradients = gradients
    with pytest.raises(Interrupted):
        training.run()


@pytest.mark.parametrize("stops", [[2, 5, 8], [9]])
def test_stopped_anywhere_and_resumed_is_uninterrupted_bit_for_bit(tmp_path, rows, stops):
    # 12 documents make about 11 rows: step 3 is in epoch 1 already.
    assert rows.num_rows < 12
    whole = weights_after(make_training(tmp_path / "whole", rows))
    for step in stops:
        stop_during(make_training(tmp_path / "parts", rows), step)
    assert same(whole, weights_after(make_training(tmp_path / "parts", rows)))


def test_the_comparison_sees_a_lost_optimizer_state(tmp_path, rows, monkeypatch):
    whole = weights_after(make_training(tmp_path / "whole", rows))
    stop_during(make_training(tmp_path / "parts", rows), 4)
    monkeypatch.setattr("stages.common.saved_state.load_optimizer_tensors", lambda *args: None)
    assert not same(whole, weights_after(make_training(tmp_path / "parts", rows)))


def test_accumulation_changes_rounding_only_when_nothing_is_random(tmp_path, rows):
    def trained(name, micro_batch_size):
        training = make_training(tmp_path / name, rows, dataclasses.replace(PLAN, micro_batch_size=micro_batch_size))
        training.model.train = lambda mode=True: torch.nn.Module.train(training.model, False)
        monkey = F.dropout
        F.dropout = lambda hidden, share: hidden
        try:
            return weights_after(training)
        finally:
            F.dropout = monkey

    one, four = trained("one", 4), trained("four", 1)
    for name in one:
        torch.testing.assert_close(one[name], four[name], rtol=0, atol=1e-5)


def test_timing_steps_leaves_no_trace(tmp_path, rows):
    whole = weights_after(make_training(tmp_path / "whole", rows))
    training = make_training(tmp_path / "timed", rows)
    assert training.seconds_per_step(num_warmup=1, num_steps=2) > 0
    assert same(whole, weights_after(training))


def test_a_checkpoint_is_saved_before_its_evaluation(tmp_path, rows):
    seen = {}
    plan = dataclasses.replace(PLAN, evaluation_steps=frozenset({0, 3, 6}))

    def evaluate(step):
        folder = tmp_path / "checkpoints" / "training"
        seen[step] = sorted(path.name for path in folder.iterdir())[-1:] if folder.exists() else []

    make_training(tmp_path, rows, plan, evaluate=evaluate).run()
    assert seen == {0: [], 3: ["step-00000003"], 6: ["step-00000006"]}


def test_a_finished_training_does_nothing(tmp_path, rows):
    whole = weights_after(make_training(tmp_path, rows))
    again = make_training(tmp_path, rows)
    assert same(whole, weights_after(again))
    assert again._num_tokens == 0


def test_a_poisoned_gradient_stops_before_the_update(tmp_path, rows):
    training = make_training(tmp_path, rows)
    original = training._gradients

    def poisoned(step, num_tokens):
        loss = original(step, num_tokens)
        if step == 5:
            training.model.head.weight.grad[0, 0] = float("nan")
            poisoned.before = training.model.head.weight.detach().clone()
        return loss

    training._gradients = poisoned
    with pytest.raises(Diverged, match="step 6: the gradient norm is nan"):
        training.run()
    assert torch.equal(training.model.head.weight, poisoned.before)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("tried 9 GiB"),
        RuntimeError("can't allocate memory: 9 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`, 9 GiB"),
    ],
)
def test_out_of_memory_names_the_key_to_lower(tmp_path, rows, error):
    training = make_training(tmp_path, rows)

    def gradients(step, num_tokens):
        raise error

    training._gradients = gradients
    with pytest.raises(StageError, match=r"step 1: out of memory .*9 GiB.* Set micro_batch_size lower"):
        training.run()


def test_another_error_is_left_as_it_is(tmp_path, rows):
    training = make_training(tmp_path, rows)
    training._gradients = lambda step, num_tokens: torch.zeros(2) @ torch.zeros(3)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        training.run()


def test_a_step_without_a_supervised_token_is_refused(tmp_path, rows):
    class Masked:
        num_supervised = staticmethod(lambda indices: 0)

    with pytest.raises(StageError, match="step 0: no supervised token"):
        make_training(tmp_path, Masked()).run()


def test_rows_that_cannot_be_shared_out_are_refused(tmp_path, rows):
    with pytest.raises(StageError, match="4 rows per step cannot be shared by 1 processes with micro_batch_size 3"):
        make_training(tmp_path, rows, dataclasses.replace(PLAN, micro_batch_size=3))
    with pytest.raises(StageError, match="micro_batch_size 8"):
        make_training(tmp_path, rows, dataclasses.replace(PLAN, micro_batch_size=8))


def test_another_identity_is_refused_by_name(tmp_path, rows):
    make_training(tmp_path, rows, learning_rate=0.1).run()
    with pytest.raises(StageError, match=r"learning_rate: 0\.1 -> 0\.2"):
        make_training(tmp_path, rows, learning_rate=0.2).run()
