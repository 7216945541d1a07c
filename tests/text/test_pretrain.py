"""The pretrain stage end to end on a tiny corpus: its artifact, its numbers, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.contract import read_events
from pipeline.errors import RecipeError, StageError
from pipeline.graph import build_graph
from pipeline.recipe import load_recipe
from stages.common.corpus_io import load_split
from stages.common.packing import Batch
from stages.common.xz import xz_bits_per_byte
from stages.text.pretrain.config import Config
from stages.text.pretrain.evaluation import Score
from stages.text.pretrain.horizon import steps_of_budget
from stages.text.pretrain.run import row_of_several_documents
from stages.text.pretrain.shape import batching, evaluation_steps, shape_of, warmup_and_cooldown
from tests.equivalence.inputs import STAGE, TINY, make_inputs
from tests.harness import run_stage


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, inputs):
    return run_stage(STAGE, tmp_path_factory.mktemp("artifact"), TINY | {"num_steps": 30, "tie_embeddings": True}, inputs)


def test_the_model_learns_and_beats_what_knows_only_frequencies(artifact):
    test = artifact.metric("bits_per_byte", "test")
    assert test < artifact.metric("bits_per_byte_unigram", "test")
    assert test == pytest.approx(artifact.metric("bits_per_byte", "validation"), rel=0.1)
    assert artifact.metric("perplexity", "test") == pytest.approx(math.exp(artifact.metric("nats_per_token", "test")))


def test_the_compressor_is_measured_as_the_corpus_measures_it(artifact, inputs):
    yardsticks = {row["name"].removeprefix("bits_per_byte_") for row in artifact.record.metrics if row.get("yardstick")}
    assert yardsticks == {"unigram", "bigram", "xz"}
    assert artifact.metric("bits_per_byte_xz", "test") == xz_bits_per_byte(load_split(inputs["corpus"], "test")["text"])


GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "pretrain_losses.json"


def test_the_losses_of_the_first_steps_are_those_recorded(artifact):
    """Tolerance 1e-3: another BLAS sums in another order; a change of data order, rates or first weights moves more."""
    losses = {event.step: event.value for event in read_events(artifact / "events.jsonl") if event.name == "loss"}
    found = [losses[step] for step in range(1, 13)]
    if os.environ.get("GROUNDUP_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps([round(loss, 5) for loss in found]) + "\n")
    assert found == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-3)


def test_the_artifact_holds_model_figures_samples_and_card(artifact):
    for name in ("model/model.safetensors", "model/tokenizer.json", "model/generation_config.json", "card.md"):
        assert (artifact / name).is_file(), name
    section = json.loads((artifact / "section.json").read_text())
    figures = [block["path"] for block in section["blocks"] if block["kind"] == "figure"]
    assert figures == ["figures/bits_per_byte.svg", "figures/loss.svg", "figures/learning_rate.svg"]
    assert all((artifact / figure).is_file() for figure in figures)
    (samples,) = [block for block in section["blocks"] if block["kind"] == "samples"]
    assert [row[0] for row in samples["rows"]] == ["30", "15", "0"]
    assert "cc0-1.0" in (artifact / "card.md").read_text()


def test_the_validation_curve_ends_with_the_finished_model(artifact):
    curve = {event.step: event.value for event in read_events(artifact / "events.jsonl") if event.name == "validation_loss"}
    assert list(curve) == [0, 15, 30]
    assert curve[30] == pytest.approx(artifact.metric("nats_per_token", "validation"), rel=0.1)


def test_the_closing_point_of_the_curve_stands_on_the_documents_of_the_others():
    score = Score(np.array([1.0, 3.0, 100.0]), np.array([1, 3, 1]), np.array([4, 4, 4]))
    assert score.first(2).nats_per_token == 1.0


def test_progress_names_every_part_of_a_training(artifact):
    events = read_events(artifact / "events.jsonl")
    told = [event.value for event in events if event.name in ("unit", "phase")]
    assert told[told.index("preparing the model") :][:2] == ["preparing the model", "step"], "step 0 of 30"
    assert told[-1].startswith("measuring xz")
    ending = list(dict.fromkeys(told[max(i for i, words in enumerate(told) if words == "step") + 1 :]))
    assert ending[:4] == ["validation window", "test window", "writing samples", "saving the model, loading it again"]


def test_saved_weights_have_clean_names(artifact):
    from safetensors import safe_open

    with safe_open(artifact / "model" / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert not [name for name in names if name.startswith(("_orig_mod.", "module."))]
    assert "lm_head.weight" not in names  # tied: the table is stored once


CLEAN_PROCESS = """
import json, socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = refuse
from transformers import AutoModelForCausalLM, AutoTokenizer
import torch
model = AutoModelForCausalLM.from_pretrained(sys.argv[1] + "/model", trust_remote_code=False)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1] + "/model", trust_remote_code=False)
probe = json.load(open(sys.argv[1] + "/model_probe.json"))
logits = model(torch.tensor(probe["input_ids"])).logits[:, -1]
print(float((logits - torch.tensor(probe["last_logits"])).abs().max()), tokenizer.decode(tokenizer.encode("the cat")))
"""


@pytest.mark.slow
def test_a_clean_process_without_network_gets_the_logits_of_training(artifact):
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CLEAN_PROCESS, str(artifact.path)], env=environment, capture_output=True, text=True, check=True
    )
    difference, text = done.stdout.strip().split(" ", 1)
    assert float(difference) == 0.0
    assert text == "the cat"


@pytest.mark.parametrize(
    ("depth", "vocab_size", "expected"),
    [
        (4, 8192, {"hidden_size": 128, "num_layers": 4, "num_heads": 2, "intermediate_size": 384, "tie_embeddings": False}),
        (6, 8192, {"hidden_size": 320, "num_layers": 6, "num_heads": 5, "intermediate_size": 896, "context_length": 512}),
        (12, 32_000, {"hidden_size": 768, "num_heads": 12, "intermediate_size": 2048, "context_length": 1024}),
    ],
)
def test_the_dial_gives_these_sizes(depth, vocab_size, expected):
    shape = shape_of(Config(depth=depth), vocab_size)
    assert {name: getattr(shape, name) for name in expected} == expected


def test_depth_twelve_with_a_large_vocabulary_is_the_size_of_gpt2_small():
    shape = shape_of(Config(depth=12, tie_embeddings=True), 50_257)
    assert 120e6 < shape.num_parameters < 130e6


def test_every_part_of_the_shape_can_be_set():
    values = {"hidden_size": 96, "num_layers": 3, "head_dim": 16, "num_heads": 4, "num_kv_heads": 2, "intermediate_size": 100}
    shape = shape_of(Config(depth=9, context_length=77, tie_embeddings=True, **values), 300)
    assert {name: getattr(shape, name) for name in values} == values
    assert (shape.context_length, shape.tie_embeddings, shape.vocab_size) == (77, True, 320)


def test_counted_parameters_are_those_of_the_model():
    from stages.text.pretrain.model import build_model

    for architecture in ("qwen3", "llama", "gpt2"):
        config = Config(architecture=architecture, depth=2, context_length=32, tie_embeddings=False)
        shape = shape_of(config, 300)
        model = build_model(shape, bos_id=0, eos_id=0, pad_id=1)
        matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "wpe" not in name)
        assert matrices == shape.num_parameters, architecture


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_heads": 4, "num_kv_heads": 3}, "must divide"),
        ({"architecture": "gpt2", "num_heads": 3}, "gpt2 needs"),
        ({"head_dim": 15}, "even number"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values, message):
    with pytest.raises(StageError, match=message):
        shape_of(Config(depth=4, **values), 300)


def test_two_horizons_are_refused_by_name():
    with pytest.raises(RecipeError, match="num_steps and budget_minutes"):
        Config.parse({"num_steps": 5, "budget_minutes": 1.0}, where="recipe")


def test_processes_that_cannot_share_a_step_are_refused_with_a_way_out():
    shape = shape_of(Config(), 300)
    with pytest.raises(StageError, match="set global_batch_size_tokens to a multiple of 1536"):
        batching(Config(), shape, num_processes=3, on_gpu=False)
    with pytest.raises(StageError, match="1 forward passes of 4 rows.* set micro_batch_size to 2"):
        batching(Config(layout="grouped"), shape, num_processes=2, on_gpu=False)
    assert batching(Config(layout="grouped", micro_batch_size=2), shape, num_processes=2, on_gpu=False).rows_per_step == 2


def test_a_budget_leaves_room_for_evaluations_and_errs_on_the_short_side():
    config = Config(budget_minutes=4.0, num_evaluations=4)
    numbers = {"tokens_per_step": 2048, "evaluation_tokens": 20_480}
    steps = steps_of_budget(config, seconds_spent=20.0, seconds_per_step=0.25, **numbers)
    assert 0.9 * 240 < 20 + steps * 0.25 + 4 * (10 * 0.25 * 0.5 + 2) < 240
    with pytest.raises(StageError, match="raise the budget"):
        steps_of_budget(config, seconds_spent=239.0, seconds_per_step=2.0, **numbers)


def test_warm_up_and_cool_down_fit_any_number_of_steps():
    for steps in (1, 2, 9, 100, 1000):
        warmup, cooldown = warmup_and_cooldown(Config(), steps)
        assert warmup + cooldown <= steps
        assert all(0 <= step < steps for step in evaluation_steps(Config(), steps))


def test_bigram_factors_start_the_model_as_a_bigram_model(inputs, tmp_path):
    from stages.common.token_store import write_token_store
    from stages.text.pretrain.model import build_model, initialise

    rng = np.random.default_rng(0)
    follower = rng.permutation(np.arange(2, 40))
    documents = []
    for _ in range(200):
        tokens = [int(rng.integers(2, 40))]
        while len(tokens) < 20:
            tokens.append(int(follower[tokens[-1] - 2]))
        documents.append(tokens)
    store = write_token_store(tmp_path / "s", [documents], vocab_size=40)
    shape = shape_of(Config(depth=2, hidden_size=32, head_dim=16, tie_embeddings=False, context_length=32), 40)

    def loss(statistics):
        model = build_model(shape, bos_id=0, eos_id=0, pad_id=1)
        initialise(model, seed=1, store=statistics, bos_id=0, eos_id=0)
        ids = torch.tensor(documents[:20])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, :-1]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))

    assert loss(None) == pytest.approx(math.log(64), rel=0.05)
    assert loss(store) < 0.6 * loss(None)


def test_one_horizon_goes_in_place_of_another_on_the_command_line():
    """The override that the head of text_small.yaml recommends."""
    recipe = Path(__file__).resolve().parents[2] / "configs/text_small.yaml"
    overrides = ["stages.pretrain.num_tokens=null", "stages.pretrain.num_steps=200"]
    assert " ".join(overrides) in recipe.read_text()
    assert build_graph(load_recipe(recipe, overrides))["pretrain"].config.num_steps == 200
    with pytest.raises(RecipeError, match=r"at most one horizon, not num_steps and num_tokens; .*NAME.num_steps=null"):
        build_graph(load_recipe(recipe, overrides[1:]))


@pytest.mark.parametrize("several", [3, None])
def test_isolation_is_proved_on_a_row_of_several_documents_where_there_is_one(several):
    class Long:
        """Rows that one document fills, but for one of them."""

        def batch(self, indices):
            (index,) = indices
            positions = torch.tensor([[0, 1, 0, 1]]) if index == several else torch.arange(4)[None]
            return Batch(torch.full((1, 4), index), torch.full((1, 4), index), positions)

    assert int(row_of_several_documents(Long()).input_ids[0, 0]) == (several or 0)
