"""The training loop on a toy model: what it weighs, saves, refuses, and where it stops."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from pipeline.errors import Diverged, Interrupted, StageError
from stages.common import devices
from stages.common.checkpoint import save_checkpoint
from stages.common.guards import check_fits, check_labels
from stages.common.optimizers import adamw
from stages.common.packing import IGNORED, Batch
from stages.common.token_store import write_token_store
from stages.common.training import Training, TrainingPlan
from tests.harness import make_context
from tests.traced import Trace, on_disk_before_named

LENGTHS = (6, 1, 4, 2, 6, 3)
"""Supervised tokens of each row: rows weigh unlike."""


class ToyRows:
    """Rows of six positions; row i is a pure function of i, the first LENGTHS[i] labels count."""

    num_rows = len(LENGTHS)

    def __init__(self, *, supervised: bool = True) -> None:
        self.supervised = supervised

    def batch(self, indices: range) -> Batch:
        ids = torch.stack([(torch.arange(6) * 5 + 3 * index) % 11 for index in indices])
        labels = (ids * 7 + 1) % 11
        for row, index in enumerate(indices):
            labels[row, LENGTHS[index % len(LENGTHS)] :] = IGNORED
        return Batch(ids, labels, None)

    def num_supervised(self, indices: range) -> int:
        return sum(LENGTHS[index % len(LENGTHS)] for index in indices) if self.supervised else 0


class ToyLoss(nn.Module):
    """A table of logits behind dropout; gives the scaled sum that the loop expects."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 11)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.table.weight)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor, _positions: None, scale: float) -> torch.Tensor:
        logits = self.dropout(self.table(ids)).flatten(0, 1)
        return nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum") * scale


def training(
    directory: Path, *, dropout: float = 0.0, rows: ToyRows | None = None, evaluate: Any = None, **plan: Any
) -> Training:
    """Return a training of six steps of two rows, one row in each forward pass."""
    model = ToyLoss(dropout)
    numbers = {"num_steps": 6, "warmup_steps": 0, "cooldown_steps": 0, "rows_per_step": 2, "micro_batch_size": 1}
    groups = [{"params": list(model.parameters()), "lr": 0.1, "weight_decay": 0.0}]
    return Training(
        context=make_context(directory),
        accelerator=Accelerator(cpu=True),
        model=model,
        module=model,
        optimizers=[adamw(groups, betas=(0.9, 0.95))],
        rows=rows or ToyRows(),
        plan=TrainingPlan(**numbers | {"max_gradient_norm": 1e9, "seed": 1} | plan),
        identity={"learning_rate": 0.1},
        evaluate=evaluate,
    )


def weights(done: Training) -> torch.Tensor:
    return next(iter(done.parameters.values())).detach().clone()


def test_a_step_weighs_every_token_alike_whatever_its_micro_batch(tmp_path):
    loop = training(tmp_path)
    loop._gradients(0, loop.rows.num_supervised(range(2)))
    (found,) = [parameter.grad.clone() for parameter in loop.parameters.values()]
    batch, model = ToyRows().batch(range(2)), ToyLoss(0.0)
    kept = batch.labels.flatten() != IGNORED
    nn.functional.cross_entropy(model.table(batch.input_ids).flatten(0, 1)[kept], batch.labels.flatten()[kept]).backward()
    torch.testing.assert_close(found, model.table.weight.grad)


def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path):
    whole = training(tmp_path / "whole", dropout=0.3)
    whole.run()
    for _ in range(2):
        stopped = training(tmp_path / "parts", dropout=0.3)
        stopped.context._stop_signal = signal.SIGTERM
        with pytest.raises(Interrupted):
            stopped.run()
    resumed = training(tmp_path / "parts", dropout=0.3)
    summary = resumed.run()
    assert summary.start_step == 2
    assert torch.equal(weights(resumed), weights(whole))


def test_a_checkpoint_is_saved_before_the_evaluation_that_fails(tmp_path):
    def fail(step: int) -> None:
        raise RuntimeError(f"evaluation after step {step}")

    loop = training(tmp_path, evaluate=fail, evaluation_steps=frozenset({4}))
    with pytest.raises(RuntimeError, match="after step 4"):
        loop.run()
    assert [path.name for path in (tmp_path / "checkpoints/training").iterdir()] == ["step-00000004"]


@pytest.mark.parametrize("step", [0, 3])
def test_a_stop_during_an_evaluation_saves_the_state_and_leaves(tmp_path, step):
    loop = training(tmp_path, evaluate=lambda _: os.kill(os.getpid(), signal.SIGTERM), evaluation_steps=frozenset({step}))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    loop.context.listen_for_stop()
    try:
        with pytest.raises(Interrupted):
            loop.run()
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert (tmp_path / f"checkpoints/training/step-{step + 1:08d}/manifest.json").exists()


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=["nan", "inf"])
def test_a_value_that_is_not_finite_stops_before_the_update(tmp_path, what, value):
    loop = training(tmp_path, evaluate=lambda _: None, evaluation_steps=frozenset({3}))
    gradients = loop._gradients

    def poisoned(step: int, num_tokens: int) -> torch.Tensor:
        loss = gradients(step, num_tokens)
        if step == 3 and what == "gradient":
            next(iter(loop.parameters.values())).grad[0, 0] = value
        return loss * value if step == 3 and what == "loss" else loss

    loop._gradients = poisoned
    with pytest.raises(Diverged, match=r"step 4: the .* is (nan|inf); stopped before the update"):
        loop.run()
    assert bool(torch.isfinite(weights(loop)).all())
    newest = sorted((tmp_path / "checkpoints/training").iterdir())[-1]
    saved = load_file(newest / "model.safetensors")
    assert newest.name == "step-00000003"
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())


def test_a_step_without_a_supervised_token_is_refused(tmp_path):
    with pytest.raises(StageError, match="step 0: no supervised token"):
        training(tmp_path, rows=ToyRows(supervised=False)).run()


@pytest.mark.slow
def test_tokens_per_second_count_training_alone(tmp_path):
    loop = training(tmp_path, evaluate=lambda _: time.sleep(0.3), evaluation_steps=frozenset({1, 2, 3}))
    begin = time.perf_counter()
    summary = loop.run()
    assert summary.num_tokens == 2 * sum(LENGTHS)
    assert summary.seconds < time.perf_counter() - begin - 0.9, "0.9 seconds of evaluation are no part of it"


def test_rows_that_cannot_be_shared_evenly_are_refused(tmp_path):
    plan = training(tmp_path).plan
    assert [plan.num_accumulation_steps(processes) for processes in (1, 2)] == [2, 1]
    with pytest.raises(StageError, match="2 rows per step cannot be shared by 3 processes"):
        plan.num_accumulation_steps(3)


def test_no_step_at_all_is_refused(tmp_path):
    with pytest.raises(StageError, match="num_steps is 0"):
        training(tmp_path, num_steps=0)


@pytest.mark.parametrize(("ids", "labels", "what"), [([0, 11], [1, 1], "input id 11"), ([0, 1], [1, 11], "label 11")])
def test_ids_and_labels_outside_the_vocabulary_are_refused(ids, labels, what):
    check_labels(Batch(torch.tensor([[0, 10]]), torch.tensor([[10, IGNORED]]), None), vocab_size=11)
    with pytest.raises(StageError, match=f"{what} is outside the vocabulary of 11"):
        check_labels(Batch(torch.tensor([ids]), torch.tensor([labels]), None), vocab_size=11)


def test_rows_and_vocabularies_that_do_not_fit_the_model_are_refused():
    fits = {"context_length": 8, "max_positions": 8, "tokenizer_size": 9, "vocab_size": 9}
    check_fits(**fits)
    with pytest.raises(StageError, match="context_length is 9, but the model has 8 positions"):
        check_fits(**fits | {"context_length": 9})
    with pytest.raises(StageError, match="the tokenizer has 10 ids, but the model has rows for 9"):
        check_fits(**fits | {"tokenizer_size": 10})


def test_numbers_too_small_to_matter_are_flushed(tmp_path):
    threads = torch.get_num_threads()
    try:
        devices.set_up_threads(make_context(tmp_path), Accelerator(cpu=True))
        assert float(torch.tensor([1e-38]) * 1e-3) == 0.0
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def test_a_machine_that_cannot_compile_trains_without(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nand a long tail")

    monkeypatch.setattr(torch, "compile", broken)
    wanted, reason = devices.decide_compile(True, torch.device("cpu"))
    assert not wanted
    assert reason == "off: torch.compile failed here (RuntimeError: no C++ compiler)"
    assert devices.decide_compile("auto", torch.device("cpu"))[0] is False


def _checkpoint(root: Path) -> None:
    save_checkpoint(root, 1, parts={"model": {"weight": torch.ones(2)}}, state={})


WRITERS = {"checkpoint": _checkpoint, "token store": lambda root: write_token_store(root / "s", [[[1, 2]]], vocab_size=9)}


@pytest.mark.parametrize("name", WRITERS)
def test_weights_and_tokens_are_on_disk_before_their_name_appears(tmp_path, monkeypatch, name):
    trace = Trace(monkeypatch)
    WRITERS[name](tmp_path)
    trace.stop()
    assert on_disk_before_named(trace, tmp_path) == []
