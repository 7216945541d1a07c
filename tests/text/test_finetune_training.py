"""Training the adapter in one process: it learns, resumes to the bit, and refuses what would train nothing or poison it."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from pipeline.contract import Context, read_events
from pipeline.errors import DataError, Diverged, Interrupted, RecipeError, StageError
from stages.common.lora import lora_parameters
from stages.text.finetune.config import Config
from stages.text.finetune.run import train
from tests.harness import make_context
from tests.text.tiny_bases import TINY, base_artifact, corpus, save_base, tiny_model


class Stopped(Context):
    """A context in which SIGTERM arrives during the step before `stop_at`."""

    stop_at = 0

    def progress(self, step, total, *, unit="step", **values):
        super().progress(step, total, unit=unit, **values)
        if unit == "step" and step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    return {"base": base_artifact(root / "base"), "corpus": corpus(root / "corpus")}


@pytest.fixture
def signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def config(**changes):
    return Config.parse(TINY | changes, where="finetune")


def adapter(trained):
    return {name: parameter.detach().clone() for name, parameter in lora_parameters(trained.model).items()}


def losses(directory):
    return {event.step: event.value for event in read_events(directory / "events.jsonl") if event.name == "loss"}


def test_the_loss_falls_when_one_sentence_is_learnt_by_heart(tmp_path, inputs):
    # A fresh model's logits are too small for a frozen table to say anything with; larger weights stand for a trained one.
    base = base_artifact(tmp_path / "base", tiny_model(initializer_range=0.3))
    one = {"base": base, "corpus": corpus(tmp_path / "corpus", ["What light breaks?"] * 12)}
    train(config(num_steps=12, learning_rate=0.03), make_context(tmp_path / "run", one))
    seen = losses(tmp_path / "run")
    assert seen[12] < 0.6 * seen[1]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, inputs, signals, dropout):
    settings = config(lora_dropout=dropout, num_steps=5)
    whole = train(settings, make_context(tmp_path / "whole", inputs))
    path = tmp_path / "stopped"
    for stop_at in (1, 3):
        path.mkdir(exist_ok=True)
        context = Stopped(path, {role: [artifact] for role, artifact in inputs.items()})
        context.stop_at = stop_at
        context.listen_for_stop()
        with pytest.raises(Interrupted):
            train(settings, context)
    resumed = train(settings, make_context(path, inputs))
    assert resumed.summary.start_step >= 3
    expected, found = adapter(whole), adapter(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert losses(tmp_path / "whole") == losses(path)


def test_a_checkpoint_holds_the_adapter_and_its_optimizer_only(tmp_path, inputs):
    trained = train(config(), make_context(tmp_path, inputs))
    (newest,) = (tmp_path / "checkpoints" / "training").iterdir()
    assert load_file(newest / "model.safetensors").keys() == lora_parameters(trained.model).keys()
    state = load_file(newest / "optimizer.safetensors")
    assert {name.rpartition(".")[0] for name in state} == lora_parameters(trained.model).keys()


@pytest.mark.parametrize("changes", [{"r": 2}, {"target_modules": ["q_proj"]}, {"learning_rate": 0.5}])
def test_a_checkpoint_of_another_adapter_is_refused(tmp_path, inputs, changes):
    train(config(), make_context(tmp_path, inputs))
    with pytest.raises(StageError, match=f"belongs to another training.*{next(iter(changes))}"):
        train(config(**changes), make_context(tmp_path, inputs))


def test_a_training_that_diverges_stops_before_the_weights_are_poisoned(tmp_path, inputs):
    context = make_context(tmp_path, inputs)
    with pytest.raises(Diverged, match="stopped before the update"):
        train(config(learning_rate=1e30, max_gradient_norm=1e30, warmup_steps=0), context)
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "merged").exists()


def test_a_corpus_without_a_token_is_refused(tmp_path, inputs):
    empty = {"base": inputs["base"], "corpus": corpus(tmp_path / "corpus", [""] * 12)}
    with pytest.raises(DataError, match="not one token"):
        train(config(), make_context(tmp_path / "run", empty))


def test_exactly_one_base_must_be_given(tmp_path, inputs):
    with pytest.raises(RecipeError, match="neither is given"):
        train(config(), make_context(tmp_path / "none", {"corpus": inputs["corpus"]}))
    with pytest.raises(RecipeError, match="both are given"):
        train(config(base=str(tmp_path)), make_context(tmp_path / "both", inputs))


def test_a_folder_is_a_base_and_its_path_is_no_part_of_the_identity(tmp_path, inputs):
    folder = save_base(tmp_path / "any name")
    settings = config(base=str(folder), num_steps=1)
    trained = train(settings, make_context(tmp_path / "run", {"corpus": inputs["corpus"]}))
    assert trained.base.identity.name == "folder:any name"
    assert str(tmp_path) not in repr(settings.identity())
    assert "base" not in settings.identity()
    assert [source.patterns for source in settings.sources()] == [(str(folder),)]


def test_a_base_on_the_hub_is_named_with_its_revision():
    assert (config(base="hub:owner/name@v1").hub_base.repo, config(base="hub:owner/name@v1").hub_base.revision) == (
        "owner/name",
        "v1",
    )
    assert config(base="hub:owner/name").hub_base.revision == "main"
    with pytest.raises(RecipeError, match="hub:owner/name@revision"):
        config(base="hub:name")


def test_rows_longer_than_the_base_can_read_are_refused(tmp_path, inputs):
    with pytest.raises(StageError, match="context_length is 65, but the model has 64 positions"):
        train(config(context_length=65), make_context(tmp_path, inputs))


def test_a_tokenizer_that_the_base_has_no_rows_for_is_refused(tmp_path, inputs):
    small = base_artifact(tmp_path / "base", tiny_model(vocab_size=200))
    with pytest.raises(StageError, match="tokenizer has 257 ids, but the model has rows for 200"):
        train(config(), make_context(tmp_path / "run", inputs | {"base": small}))


@pytest.mark.slow
def test_a_budget_in_minutes_becomes_steps_once(tmp_path, inputs):
    settings = config(num_steps=None, budget_minutes=0.01)
    context = make_context(tmp_path, inputs)
    steps = train(settings, context).training.plan.num_steps
    assert steps >= 1
    assert context.resolved()["num_steps"] == steps
    assert train(settings, make_context(tmp_path, inputs)).training.plan.num_steps == steps


def test_two_horizons_are_refused():
    with pytest.raises(RecipeError, match="at most one horizon, not num_steps and num_epochs; .*NAME.num_steps=null"):
        config(num_steps=1, num_epochs=1.0)
