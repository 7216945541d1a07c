"""The flow family on the grid: bits per dimension, fresh noise, samples, saving, and the stage from end to end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import DataError
from stages.common.images.grid import Grid, dequantise, quantise
from stages.common.images.noise import seeded_generator, whole_batch
from stages.image.flow.config import Config
from stages.image.flow.model import Flow
from stages.image.flow.networks import drop_features
from stages.image.flow.pipeline import FlowPipeline
from tests.harness import run_stage
from tests.image.digits import toy_artifact

ARCHITECTURES = pytest.mark.parametrize("architecture", ["coupling", "autoregressive"])
SMALL = {
    "num_transforms": 2,
    "num_bins": 4,
    "hidden_size": 8,
    "num_layers": 1,
    "dropout": 0.0,
    "num_dequantisation_draws": 4,
}


def grid(*, levels=4, shape=(1, 4, 4)):
    channels, height, width = shape
    return Grid(
        name="toy", license="cc0-1.0", levels=levels, channels=channels, height=height, width=width,
        classes=(), sizes={}, sha256={},
    )  # fmt: skip


def make(architecture, *, levels=4, shape=(1, 4, 4), stir=0.3, **settings):
    """Return a flow with random last layers too (`stir` is their deviation), so that it is far from the uniform density."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = Flow(grid(levels=levels, shape=shape), Config(architecture=architecture, **SMALL | settings))
        for transform in flow.network.transforms:
            torch.nn.init.normal_(transform.network.head.weight, std=stir)
    return flow


def images(num, flow, seed=0):
    drawn = torch.randint(flow.grid.levels, (num, *flow.grid.shape), generator=seeded_generator(seed))
    return drawn.to(torch.uint8)


@ARCHITECTURES
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_uniform_density_costs_log2_of_the_levels(architecture, levels):
    flow = make(architecture, levels=levels, stir=0)
    bits = flow.likelihood(images(3, flow), seeded_generator(1)).bits
    assert bits.tolist() == pytest.approx([math.log2(levels)] * 3, abs=1e-5)


@ARCHITECTURES
def test_the_loss_is_the_bits_per_dimension_of_one_draw(architecture):
    flow = make(architecture)
    (player,) = flow.players().values()
    batch, labels = images(5, flow), torch.full((5,), -1)
    values = dequantise(batch, 4, whole_batch(5, 3).uniform(1, 4, 4))
    with torch.no_grad():
        expected = -flow.network.log_prob(values).mean() / math.log(2) / 16 + math.log2(4 / 2)
        assert float(player(batch, labels, whole_batch(5, 3))["loss"]) == pytest.approx(float(expected), abs=1e-6)


def test_noise_is_drawn_afresh_at_each_step():
    flow = make("coupling")
    (player,) = flow.players().values()
    batch, labels = images(5, flow), torch.full((5,), -1)
    losses = [player(batch, labels, whole_batch(5, 0, step))["loss"].item() for step in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


@ARCHITECTURES
def test_dropout_follows_the_noise_of_the_step_and_rests_without_it(architecture):
    flow = make(architecture, dropout=0.5)
    values = dequantise(images(5, flow), 4, torch.full((5, 1, 4, 4), 0.5))
    with torch.no_grad():
        first, again, other = (flow.network.log_prob(values, whole_batch(5, step)) for step in (0, 0, 1))
        without = [flow.network.log_prob(values) for _ in range(2)]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(*without)


def test_dropout_keeps_the_mean_and_drops_a_feature_everywhere():
    dropped = drop_features(torch.ones(400, 3, 8), 0.25, whole_batch(400, 0))
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 3, -1))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("architecture", "shape"), [("coupling", (2, 1, 1)), ("autoregressive", (1, 1, 2))])
def test_probabilities_of_all_images_of_two_pixels_sum_to_almost_one_and_never_more(architecture, shape):
    flow = make(architecture, shape=shape, stir=0.1, patch_size=1, num_dequantisation_draws=100)
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4)).to(torch.uint8).view(16, *shape)
    likelihood = flow.likelihood(every, seeded_generator(0))
    probabilities = (-likelihood.bits * 2).exp2()
    assert likelihood.kind == "lower bound"
    assert probabilities.max() > 1.2 * probabilities.min()
    assert 0.97 < probabilities.sum() < 1.01


@ARCHITECTURES
def test_more_draws_of_noise_tighten_the_bound(architecture):
    flow = make(architecture, stir=1.0)
    batch = images(50, flow)
    one, many = (float(flow.bits_per_dim(batch, k, seeded_generator(1)).mean()) for k in (1, 16))
    assert many < one


@ARCHITECTURES
def test_a_sample_is_the_inverse_of_its_latent(architecture):
    flow = make(architecture)
    samples, latents = flow.sample(20, seeded_generator(5)), flow.base(20, seeded_generator(5))
    with torch.no_grad():
        values = flow.network.inverse(latents)
        again, _ = flow.network(values)
    assert torch.equal(samples, quantise(values, 4))
    assert (again - latents).abs().max() < 1e-3


@ARCHITECTURES
def test_samples_lie_on_the_grid_and_follow_the_generator(architecture):
    flow = make(architecture)
    first, again, other = (flow.sample(300, seeded_generator(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.uint8
    assert first.shape == (300, 1, 4, 4)
    assert set(first.unique().tolist()) == {0, 1, 2, 3}
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@ARCHITECTURES
def test_images_come_back_from_their_latents(architecture):
    flow = make(architecture)
    batch = images(30, flow)
    assert torch.equal(flow.decode(flow.encode(batch, seeded_generator(0))), batch)


@pytest.mark.parametrize(("architecture", "evaluations"), [("coupling", 1), ("autoregressive", 4)])
def test_function_evaluations_are_counted_patch_by_patch(architecture, evaluations):
    flow = make(architecture)
    calls = []
    for transform in flow.network.transforms:
        transform.network.head.register_forward_hook(lambda *_: calls.append(1))
    flow.sample(3, seeded_generator(0))
    assert flow.num_function_evaluations == evaluations == len(calls) / len(flow.network.transforms)


@ARCHITECTURES
def test_half_precision_products_leave_the_splines_in_single(architecture):
    flow = make(architecture)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob = flow.network.log_prob(dequantise(images(5, flow), 4, torch.rand(5, 1, 4, 4)))
    assert log_prob.dtype == torch.float32
    assert log_prob.isfinite().all()


@ARCHITECTURES
def test_what_was_saved_gives_the_same_density(architecture, tmp_path):
    flow = make(architecture)
    flow.network.save_pretrained(tmp_path)
    loaded = type(flow.network).from_pretrained(tmp_path)
    values = dequantise(images(6, flow), 4, torch.rand(6, 1, 4, 4, generator=seeded_generator(0)))
    with torch.no_grad():
        assert torch.equal(loaded.log_prob(values), flow.network.log_prob(values))
    assert loaded.config.levels == 4


def test_a_size_that_patches_do_not_cover_is_refused_by_name():
    with pytest.raises(DataError, match="height 5 is not a multiple of patch_size 2"):
        make("coupling", shape=(1, 5, 4))


def test_the_pipeline_gives_arrays_tensors_and_pictures():
    flow = make("coupling", shape=(3, 4, 4))
    pipeline = FlowPipeline(flow=flow.network)
    array, tensor, pictures = (
        pipeline(batch_size=2, generator=seeded_generator(0), output_type=kind).images for kind in ("np", "pt", "pil")
    )
    expected = flow.sample(2, seeded_generator(0)).float() / 3
    assert torch.equal(tensor, expected)
    assert np.array_equal(array, expected.permute(0, 2, 3, 1).numpy())
    assert [picture.size for picture in pictures] == [(4, 4), (4, 4)]


def test_the_pipeline_refuses_an_unknown_output():
    with pytest.raises(DataError, match="output_type is 'jpeg'; use one of pil, np, pt"):
        FlowPipeline(flow=make("coupling").network)(output_type="jpeg")


@pytest.mark.slow
@ARCHITECTURES
def test_the_pipeline_loads_in_a_clean_process_without_the_network(architecture, tmp_path):
    flow = make(architecture)
    flow.save(tmp_path)
    code = (
        "import sys, torch; from stages.image.flow.pipeline import FlowPipeline\n"
        "images = FlowPipeline.from_pretrained(sys.argv[1])(4, torch.Generator().manual_seed(7), 'pt').images\n"
        "print((images * 3).round().int().flatten().tolist())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"HF_HUB_OFFLINE": "1", "PATH": "", "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = flow.sample(4, torch.Generator().manual_seed(7)).flatten().tolist()
    assert json.loads(found.stdout) == expected


@pytest.mark.slow
@ARCHITECTURES
def test_the_stage_writes_a_whole_artifact(architecture, tmp_path):
    data = toy_artifact(tmp_path / "images")
    values = SMALL | {"architecture": architecture, "budget_tflop": 2e-4, "batch_size": 16, "num_samples": 20}
    artifact = run_stage("stages.image.flow", tmp_path / "flow", values, {"images": data})
    facts = json.loads((artifact.path / "family.json").read_text())
    metrics = {(row["name"], row["split"]): row for row in artifact.record.metrics}
    assert facts["likelihood"]["kind"] == "lower bound"
    assert metrics["bits_per_dim", "test"]["value"] < math.log2(4)
    assert metrics["log_det_error", "test"]["value"] < 1e-8
    assert metrics["round_trip_error", "test"]["value"] < 1e-3
    assert FlowPipeline.from_pretrained(artifact.path / "model")(2).images
    figures = {path.name for path in (artifact.path / "figures").iterdir()}
    assert {"there_and_back.png", "latents.svg", "sample_steps.png", "interpolation.png", "morph.png", "ranked.png"} <= figures
