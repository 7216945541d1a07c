"""The shared loop on a toy family: stop and go on bit for bit, the budget in counted FLOPs, averages, divergence."""

from __future__ import annotations

import itertools
import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn

from pipeline.errors import Diverged, Interrupted, StageError
from stages.common.images import ledger as ledger_module
from stages.common.images.averages import AveragedWeights
from stages.common.images.config import ImageModelConfig
from stages.common.images.grid import load_grid, load_split
from stages.common.images.ledger import FlopLedger
from stages.common.images.stage import run_family, steps_of_budget
from stages.common.images.training import ImageTraining, cosine_factor
from tests.harness import commit, make_context
from tests.image.digits import toy_artifact
from tests.image.toy_family import ToyFamily

CONFIG = ImageModelConfig(budget_tflop=1.0, batch_size=8, num_samples=20, num_likelihood_images=10, seed=3)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toy_artifact(tmp_path_factory.mktemp("images"))


def make_training(directory, images, config=CONFIG, family=ToyFamily):
    torch.manual_seed(config.seed)
    return ImageTraining(
        config=config,
        context=make_context(directory, {"images": images}),
        accelerator=Accelerator(cpu=True, mixed_precision="no"),
        family=family(load_grid(images)),
        train=load_split(images, "train"),
        identity={"learning_rate": config.learning_rate},
    )


def state_of(training):
    return {name: value.detach().clone() for name, value in [*training.parameters.items(), *training.averages.tensors.items()]}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def stop_after(training, step):
    original = training._play

    def play(seat, at, index):
        training.context._stop_signal = 15 * (at + 1 == step)
        return original(seat, at, index)

    training._play = play


@pytest.mark.parametrize("stops", [[1], [3, 11], [20]])
def test_a_training_that_was_stopped_ends_with_the_same_bits(stops, tmp_path, images):
    whole = make_training(tmp_path / "whole", images)
    whole.run(20, {})
    for stop in stops:
        training = make_training(tmp_path / "cut", images)
        stop_after(training, stop)
        with pytest.raises(Interrupted):
            training.run(20, {})
    last = make_training(tmp_path / "cut", images)
    last.run(20, {})
    assert same(state_of(whole), state_of(last))


def test_another_learning_rate_is_refused_by_name(tmp_path, images):
    make_training(tmp_path, images).run(8, {})
    changed = make_training(tmp_path, images, CONFIG.model_copy(update={"learning_rate": 0.5}))
    with pytest.raises(StageError, match=r"learning_rate: 0\.001 -> 0\.5"):
        changed.run(8, {})


def test_a_checkpoint_is_saved_before_the_evaluation_that_fails(tmp_path, images):
    def fail():
        raise RuntimeError("no")

    training = make_training(tmp_path, images)
    with pytest.raises(RuntimeError):
        training.run(8, {4: fail})
    assert [path.name for path in (training.context.checkpoints / "training").iterdir()] == ["step-00000004"]


def test_samples_on_the_way_are_of_exactly_so_many_steps(tmp_path, images):
    training, seen = make_training(tmp_path, images), {}
    training.run(8, {4: lambda: seen.update(state_of(training))})
    saved = training.context.checkpoints / "training" / "step-00000004"
    assert same(seen, load_file(saved / "model.safetensors") | load_file(saved / "averages.safetensors"))


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stops_before_the_update(what, bad, tmp_path, images):
    training = make_training(tmp_path, images)
    before = state_of(training)
    if what == "gradient":
        training.family.first.table.register_hook(lambda grad: grad * bad)
    else:
        training.seats[0].player.register_forward_hook(lambda _, args, losses: losses | {"loss": losses["loss"] + bad})
    with pytest.raises(Diverged, match=f"step 1: the {what}.* is (nan|inf)"):
        training.run(8, {})
    assert same(before, state_of(training))
    assert not list(training.context.checkpoints.rglob("step-*")), "nothing of it was saved"


def test_a_gradient_that_is_too_long_is_cut_to_the_largest_norm(tmp_path, images, monkeypatch):
    lengths = []
    for most in (1e-3, 10.0):
        training = make_training(tmp_path / str(most), images)
        seat = training.seats[0]
        table = training.family.first.table
        monkeypatch.setattr(seat.optimizer, "step", lambda of=table: lengths.append(float(of.grad.norm())))
        rule = replace(seat.rule, max_gradient_norm=most)
        logged = training._play(replace(seat, rule=rule), 0, 0)["pixels.gradient_norm"]
    assert lengths == pytest.approx([1e-3, logged])
    assert 1e-3 < logged < 10.0  # it is told as it was


def test_each_step_and_each_player_draws_noise_of_its_own(tmp_path, images):
    training = make_training(tmp_path, images)
    drawn = [
        training._loss(lambda images, labels, noise: {"loss": noise.uniform(5)}, step, index)["loss"].flatten().tolist()
        for step, index in [(0, 0), (1, 0), (0, 1), (0, 0)]
    ]
    assert drawn[0] == drawn[3]
    assert not {*drawn[0]} & {*drawn[1]}
    assert not {*drawn[0]} & {*drawn[2]}


def test_no_gradient_outlives_its_step(tmp_path, images):
    training = make_training(tmp_path, images)
    training.run(2, {})
    assert [parameter.grad for parameter in training.parameters.values()] == [None] * len(training.parameters)


def test_every_step_moves_the_weights_of_every_player(tmp_path, images):
    """Nothing is accumulated over steps, so no list of models can lack one of them."""
    training = make_training(tmp_path, images)
    seen = [{name: p.detach().clone() for name, p in training.parameters.items()}]
    training.run(
        4, dict.fromkeys(range(1, 4), lambda: seen.append({n: p.detach().clone() for n, p in training.parameters.items()}))
    )
    assert len(seen) == 4
    assert not any(torch.equal(before[name], after[name]) for before, after in itertools.pairwise(seen) for name in before)


@pytest.mark.parametrize("batch_size", [65, 1000])
def test_a_batch_larger_than_the_data_is_refused_with_what_fits(batch_size, tmp_path, images):
    with pytest.raises(StageError, match="set at most 64"):
        make_training(tmp_path, images, CONFIG.model_copy(update={"batch_size": batch_size}))


class Hungry(ToyFamily):
    """Takes 256 MiB of address space for each image; none of it is touched, so none is used."""

    def players(self):
        players = super().players()
        look = players["pixels"].forward

        def forward(images, labels, noise):
            room = torch.empty(len(images), 2**28, dtype=torch.uint8)
            losses = look(images, labels, noise)
            return losses | {"loss": losses["loss"] + 0 * room[0, 0]}

        players["pixels"].forward = forward
        return players


@pytest.fixture
def little_room():
    """Let this process have 768 MiB more than it has now."""
    now, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * 2**28, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (now, hard))


@pytest.mark.slow
@pytest.mark.parametrize("count", [True, False], ids=["counting", "training"])
@pytest.mark.usefixtures("little_room")
def test_out_of_memory_names_a_batch_that_was_tried_and_fits(count, tmp_path, images):
    training = make_training(tmp_path, images, family=Hungry)
    before = state_of(training)
    with pytest.raises(StageError, match=r"out of memory with batch_size 8 .*: set batch_size to 2 or less"):
        training.flops_per_step() if count else training.run(8, {})
    assert same(before, state_of(training))
    training = make_training(tmp_path, images, CONFIG.model_copy(update={"batch_size": 2}), Hungry)
    training.run(8, {})


@pytest.mark.slow
@pytest.mark.usefixtures("little_room")
def test_out_of_memory_says_when_no_batch_fits(tmp_path, images):
    training = make_training(tmp_path, images)
    training._loss = lambda *args, **rest: torch.empty(2**40)
    with pytest.raises(StageError, match="not even the smallest batch fits"):
        training.run(8, {})


def test_an_error_that_is_not_about_memory_is_left_as_it_is(tmp_path, images):
    training = make_training(tmp_path, images)
    training.family.first.table.register_hook(lambda grad: grad @ grad)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        training.run(8, {})


def test_the_ledger_counts_forward_and_backward_and_the_double_backward_of_a_penalty():
    layer, x = nn.Linear(3, 5, bias=False), torch.randn(7, 3, requires_grad=True)
    product = 2 * 7 * 3 * 5
    with FlopLedger() as ledger:
        layer(x)
    assert ledger.flops == product
    with FlopLedger() as ledger:
        (slope,) = torch.autograd.grad(layer(x).pow(2).sum(), x, create_graph=True)
        slope.square().sum().backward()
    # forward, slope = g W; backward: of slope by W and by g, then of the forward by W and by x
    assert ledger.flops == 6 * product


def test_the_ledger_agrees_with_pytorch_where_pytorch_can_count():
    from torch.utils.flop_counter import FlopCounterMode

    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    x = torch.randn(5, 2, 6, 6)
    with FlopLedger() as ours:
        network(x).sum().backward()
    with FlopCounterMode(display=False) as theirs:
        network(x).sum().backward()
    assert ours.flops == theirs.get_total_flops() > 0


def penalised(network, x):
    """Count a step of a network with a gradient penalty, as a GAN's discriminator has."""
    x = x.clone().requires_grad_()
    with FlopLedger() as ledger:
        out = network(x)
        (slope,) = torch.autograd.grad(out.pow(2).sum(), x, create_graph=True)
        (out.sum() + slope.square().sum()).backward()
    return ledger.flops


class PerGroup(nn.Module):
    """A grouped convolution, one group at a time."""

    def __init__(self, grouped):
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(4 // grouped, 8 // grouped, 3, padding=1, bias=False) for _ in range(grouped))

    def forward(self, x):
        return torch.cat([part(piece) for part, piece in zip(self.parts, x.chunk(len(self.parts), 1), strict=True)], 1)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_grouped_convolution_costs_what_its_groups_cost(groups):
    x = torch.randn(3, 4, 6, 6)
    assert penalised(nn.Conv2d(4, 8, 3, padding=1, groups=groups, bias=False), x) == penalised(PerGroup(groups), x) > 0


def test_attention_costs_its_products_on_a_cpu_as_well():
    queries, keys, values = (torch.randn(2, 3, 8, 16, requires_grad=True) for _ in range(3))
    with FlopLedger() as forward:
        out = nn.functional.scaled_dot_product_attention(queries, keys, values)
    assert forward.flops == 2 * 2 * (2 * 3 * 8 * 8 * 16)
    with FlopLedger() as backward:
        out.sum().backward()
    assert backward.flops >= 2 * forward.flops


def test_attention_that_cannot_be_counted_is_refused(monkeypatch):
    known = {op: count for op, count in ledger_module._FORMULAS.items() if "attention" not in op.__name__}
    monkeypatch.setattr(ledger_module, "_FORMULAS", known)
    one = torch.randn(2, 3, 8, 16)
    with pytest.raises(StageError, match="cannot be counted"), FlopLedger():
        nn.functional.scaled_dot_product_attention(one, one, one)


def test_counting_changes_no_weight_and_leaves_no_gradient(tmp_path, images):
    training = make_training(tmp_path, images)
    before = state_of(training)
    training.flops_per_step()
    assert same(before, state_of(training))
    assert all(parameter.grad is None for parameter in training.parameters.values())


def test_a_budget_buys_whole_steps_and_too_small_a_one_says_what_is_needed():
    assert steps_of_budget(1e-9, 100) == 10
    with pytest.raises(StageError, match="pays for 1 steps.*set budget_tflop to 8e-10 or more"):
        steps_of_budget(1e-10, 100)


def test_the_average_forgets_the_start_and_weights_come_back():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    averages = AveragedWeights({"a": network}, decay=0.9)
    for done in (1, 2, 3):
        nn.init.constant_(network.weight, float(done))
        averages.update(done)
    first = 0.9 * 1  # decay 1/10 after one update from 0
    second = first * 2 / 11 + 2 * 9 / 11
    third = second * 3 / 12 + 3 * 9 / 12
    assert averages.tensors["a.weight"].item() == pytest.approx(third)
    with averages.in_place():
        assert network.weight.item() == pytest.approx(third)
    assert network.weight.item() == 3


def test_the_rate_rises_over_a_tenth_and_falls_to_zero():
    factors = [cosine_factor(step, num_steps=100) for step in range(100)]
    assert factors[0] == 0.1
    assert factors[9] == 1.0
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert 0 < factors[-1] < 0.001


def test_the_artifact_holds_samples_of_each_share_likelihood_and_cost(tmp_path, images):
    context = make_context(tmp_path / "run", {"images": images})
    flops_per_step = 2 * 2 * 8 * 16 * 4  # forward, and backward to the table
    config = CONFIG.model_copy(update={"budget_tflop": 24.5 * flops_per_step / 1e12})
    run_family(config, context, ToyFamily)
    artifact = commit("stages.image.toy", config, context)
    facts = json.loads((artifact.path / "family.json").read_text())
    assert (facts["flops_per_step"], facts["num_steps"]) == (flops_per_step, 24)
    assert facts["training_flops"] == 24 * flops_per_step <= config.budget_tflop * 1e12
    assert facts["parameters"] == facts["extra_parameters"] == 16 * 4
    samples = load_file(artifact.path / "samples.safetensors")
    assert set(samples) == {"1/8", "1/4", "1/2", "1", "raw"}
    assert all(value.shape == (20, 1, 4, 4) and value.dtype == torch.uint8 for value in samples.values())
    assert not torch.equal(samples["1/8"], samples["1"])
    bits = load_file(artifact.path / "likelihood.safetensors")
    assert {split: len(value) for split, value in bits.items()} == {"train": 10, "validation": 10, "test": 10}
    pictures = list((artifact.path / "figures").iterdir())
    assert [path.name for path in pictures] == ["film_strip.png"]
    assert pictures[0].read_bytes().startswith(b"\x89PNG"), "never JPEG"
    told = (artifact.path / "events.jsonl").read_text()
    assert all(f'"measuring bits per dimension of 10 {split} images"' in told for split in ("train", "validation", "test"))
    assert load_grid(artifact) == load_grid(images)
    assert '```python\nimages = load("model")\n```' in (artifact.path / "card.md").read_text()
    names = {metric["name"] for metric in json.loads((artifact.path / "metrics.json").read_text())}
    assert {"bits_per_dim", "training_flops", "latency_ms_per_image", "num_function_evaluations"} <= names
