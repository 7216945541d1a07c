"""Resumed = uninterrupted, bit for bit, wherever the training was stopped."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from pipeline.contract import read_events
from pipeline.errors import Damaged, Diverged, Interrupted, StageError
from stages.common.training import Training
from stages.text.pretrain.config import Config
from stages.text.pretrain.run import run
from tests.equivalence.inputs import STAGE, TINY, make_inputs
from tests.harness import make_context

# 60 documents make about 88 rows: 6 steps of 4 rows stay in epoch 0, 40 steps end in epoch 1.
pytestmark = pytest.mark.slow

VALUES = TINY | {"num_evaluations": 0, "prompts": []}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def train(directory, inputs, values=VALUES, *, stop_after=None):
    """Train; with `stop_after` ask for a stop as SIGTERM does, during that step."""
    context = make_context(directory, inputs)
    if stop_after is not None:
        log = context.progress

        def progress(step, total, **rest):
            log(step, total, **rest)
            if step == stop_after - 1 and rest.get("unit", "step") == "step":
                context._stop_signal = 15

        context.progress = progress
        if stop_after == 1:
            context._stop_signal = 15
    run(Config.parse(values, where=STAGE), context)
    return context


def weights(directory):
    return load_file(directory / "model" / "model.safetensors")


def assert_same_weights(first, second):
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def losses(directory):
    return sorted({(event.step, event.value) for event in read_events(directory / "events.jsonl") if event.name == "loss"})


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, inputs):
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(directory, inputs)
    return directory


@pytest.mark.parametrize("stops", [[1], [3], [2, 4], [6]])
def test_a_training_stopped_anywhere_ends_with_the_same_weights(tmp_path, inputs, uninterrupted, stops):
    for step in stops:
        with pytest.raises(Interrupted):
            train(tmp_path, inputs, stop_after=step)
        assert (tmp_path / "checkpoints" / "training" / f"step-{step:08d}").is_dir()
    train(tmp_path, inputs)
    assert_same_weights(tmp_path, uninterrupted)
    assert losses(tmp_path) == losses(uninterrupted)


def test_a_finished_training_only_writes_its_outputs_again(tmp_path, inputs, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "model")
    context = train(tmp_path / "copy", inputs)
    assert_same_weights(tmp_path / "copy", uninterrupted)
    assert losses(tmp_path / "copy") == losses(uninterrupted)
    assert "tokens_per_second" not in [row["name"] for row in context._metrics]


@pytest.mark.parametrize(
    ("steps", "stop_after", "changes"),
    [
        (40, 23, {}),
        (40, 33, {"architecture": "gpt2"}),
        (40, 21, {"optimizer": "adamw", "tie_embeddings": True}),
        (50, 43, {"layout": "grouped"}),
    ],
    ids=["epoch 1", "gpt2", "adamw tied", "grouped"],
)
def test_resuming_in_a_later_epoch_changes_nothing(tmp_path, inputs, steps, stop_after, changes):
    values = VALUES | {"num_steps": steps} | changes
    train(tmp_path / "whole", inputs, values)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", inputs, values, stop_after=stop_after)
    train(tmp_path / "parts", inputs, values)
    assert_same_weights(tmp_path / "parts", tmp_path / "whole")


def test_a_damaged_newest_checkpoint_costs_steps_and_nothing_else(tmp_path, inputs, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "copy")
    values = VALUES | {"num_evaluations": 3}
    train(tmp_path / "whole", inputs, values)
    shutil.rmtree(tmp_path / "whole" / "model")
    newest = sorted((tmp_path / "whole" / "checkpoints" / "training").iterdir())[-1]
    (newest / "optimizer.safetensors").write_bytes(b"")
    context = train(tmp_path / "whole", inputs, values)
    assert_same_weights(tmp_path / "whole", uninterrupted)
    notes = [event.value for event in read_events(tmp_path / "whole" / "events.jsonl") if event.name == "note"]
    assert any("passed over: step-00000006" in note for note in notes)
    assert any("passed over" in block.get("text", "") for block in context.section.blocks)


def test_when_every_checkpoint_is_damaged_nothing_starts_over_in_silence(tmp_path, inputs, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "copy")
    for checkpoint in (tmp_path / "copy" / "checkpoints" / "training").iterdir():
        (checkpoint / "model.safetensors").unlink()
    with pytest.raises(Damaged, match="--force"):
        train(tmp_path / "copy", inputs)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"muon_learning_rate": 0.5}, "muon_learning_rate: None -> 0.5"),
        ({"seed": 6}, "seed: 5 -> 6"),
        ({"num_steps": 9}, "num_steps: 6 -> 9"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_by_field(tmp_path, inputs, uninterrupted, change, named):
    shutil.copytree(uninterrupted, tmp_path / "copy")
    with pytest.raises(StageError, match=named):
        train(tmp_path / "copy", inputs, VALUES | change)


def test_another_corpus_is_refused(tmp_path, inputs, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "tokens")
    others = make_inputs(tmp_path / "inputs", num_documents=50)
    others["corpus"].record = others["corpus"].record.model_copy(update={"fingerprint": "another"})
    with pytest.raises(StageError, match=r"corpus: '[0-9a-f]+' -> 'another'"):
        train(tmp_path / "copy", others)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_value_that_is_not_finite_stops_before_the_update(tmp_path, inputs, monkeypatch, what):
    original = Training._gradients

    def poisoned(self, step, num_tokens):
        loss = original(self, step, num_tokens)
        if step == 4 and what == "gradient":
            next(iter(self.parameters.values())).grad[0, 0] = math.inf
        return loss * math.nan if step == 4 and what == "loss" else loss

    values = VALUES | {"checkpoint_seconds": 1e-6}
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_gradients", poisoned)
        with pytest.raises(Diverged, match=r"step 5: the .* is (nan|inf)"):
            train(tmp_path, inputs, values)
    saved = sorted((tmp_path / "checkpoints" / "training").iterdir())[-1]
    assert all(torch.isfinite(value).all() for value in load_file(saved / "model.safetensors").values())


def test_a_budget_is_turned_into_steps_once(tmp_path, inputs):
    values = {name: value for name, value in VALUES.items() if name != "num_steps"} | {"budget_minutes": 60.0}
    context = make_context(tmp_path, inputs)
    context.resolve("num_steps", lambda: 6)
    run(Config.parse(values, where=STAGE), context)
    assert losses(tmp_path)[-1][0] == 6


def test_timing_steps_for_a_budget_leaves_no_trace(tmp_path, inputs, uninterrupted, monkeypatch):
    values = {name: value for name, value in VALUES.items() if name != "num_steps"} | {"budget_minutes": 60.0}
    monkeypatch.setattr("stages.text.pretrain.run.steps_of_budget", lambda *args, **rest: 6)
    train(tmp_path, inputs, values)
    assert_same_weights(tmp_path, uninterrupted)
