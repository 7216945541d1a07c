"""Flow matching: conventions of sign and time, samples, densities, and what diffusers makes of the saved model."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMPipeline
from torch import nn

from stages.common.images.grid import Grid, dequantise
from stages.common.images.noise import seeded_generator, whole_batch
from stages.image.flow_matching.config import Config
from stages.image.flow_matching.model import FlowMatching, VelocityPlayer, straight_path, velocity
from stages.image.flow_matching.report import _solver_error
from tests.harness import make_context, run_stage
from tests.image.digits import toy_artifact

TINY = {"block_out_channels": (4, 8)}


def grid(height=4, width=4, levels=4):
    return Grid(
        name="toy",
        license="cc0-1.0",
        levels=levels,
        channels=1,
        height=height,
        width=width,
        classes=(),
        sizes={},
        sha256={},
    )


def tiny(**values):
    return FlowMatching(grid(), Config(**TINY | values))


def some_images(num=6, levels=4, height=4, width=4):
    return torch.randint(levels, (num, 1, height, width), generator=seeded_generator(9)).to(torch.uint8)


class OnePoint(nn.Module):
    """What a perfect U-Net says, in diffusers' terms, when all data are the constant `value`: noise - data = (x - data) / sigma."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, timestep):
        sigma = (timestep / 1000).clamp(min=1e-3).view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(x - self.value) / sigma)


def test_the_path_starts_at_noise_and_ends_at_data():
    noise, data = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    x, velocities = straight_path(noise, data, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(x, torch.stack([noise[0], 0.75 * noise[1] + 0.25 * data[1], data[2]]))
    torch.testing.assert_close(velocities, data - noise)


def test_the_velocity_is_minus_what_the_network_says_at_1000_times_the_noise_share():
    seen = []

    def network(x, timestep):
        seen.append(timestep)
        return SimpleNamespace(sample=3 * x)

    x = torch.randn(2, 1, 2, 2)
    torch.testing.assert_close(velocity(network, x, torch.tensor([0.25, 1.0])), -3 * x)
    torch.testing.assert_close(seen[0], torch.tensor([750.0, 0.0]))


def test_the_loss_of_the_true_field_is_almost_0_and_of_the_opposite_one_is_not():
    levels = 256
    images = torch.full((512, 1, 2, 2), 200, dtype=torch.uint8)
    centre = 2 * 200.5 / levels - 1

    def loss(network):
        player = VelocityPlayer(network, Config(), levels=levels, patch_size=1)
        return float(player(images, torch.zeros(512), whole_batch(512, 0))["loss"])

    class Opposite(OnePoint):
        def forward(self, x, timestep):
            return SimpleNamespace(sample=-super().forward(x, timestep).sample)

    assert loss(OnePoint(centre)) < 0.01
    assert loss(Opposite(centre)) > 1


def test_samples_of_the_true_field_are_the_data():
    family = tiny()
    family.integrate(family.noise(1, seeded_generator(0)), 1)
    unet = OnePoint(2 * 2.5 / 4 - 1)
    unet.config, unet.device = family.unet.config, torch.device("cpu")
    family.unet = unet
    assert family.sample(5, seeded_generator(0)).unique().tolist() == [2]


def test_a_gradient_reaches_every_parameter():
    family = tiny(attention=True)
    player = family.players()["velocity"]
    images = some_images(8)
    player(images, torch.zeros(8), whole_batch(8, 0))["loss"].backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in player.parameters())


def test_samples_are_on_the_grid_and_follow_from_the_generator():
    family = tiny(num_sample_steps=3)
    samples = family.sample(7, seeded_generator(1))
    assert samples.shape == (7, 1, 4, 4)
    assert samples.dtype == torch.uint8
    assert int(samples.max()) <= 3
    assert torch.equal(samples, family.sample(7, seeded_generator(1)))
    assert not torch.equal(samples, family.sample(7, seeded_generator(2)))


def test_function_evaluations_are_calls_and_not_steps():
    family, calls = tiny(num_sample_steps=5), []
    family.unet.register_forward_hook(lambda *_: calls.append(1))
    family.sample(2, seeded_generator(0))
    assert family.num_function_evaluations == len(calls) == 10


def test_shorter_paths_take_as_many_calls_as_they_say_from_the_same_noise():
    family, calls = tiny(num_sample_steps=5), []
    family.unet.register_forward_hook(lambda *_: calls.append(1))
    found = family.shorter_paths()
    assert list(found) == [2, 4]
    for number, sampler in found.items():
        calls.clear()
        images = sampler(3, torch.Generator().manual_seed(0))
        assert len(calls) == number
        again = tiny(num_sample_steps=number // 2)
        again.unet.load_state_dict(family.unet.state_dict())
        assert torch.equal(images, again.sample(3, torch.Generator().manual_seed(0)))


def test_bits_of_a_field_that_stands_still_are_those_of_the_noise_itself():
    family = tiny(num_likelihood_steps=2)
    nn.init.zeros_(family.unet.conv_out.weight)
    nn.init.zeros_(family.unet.conv_out.bias)
    images = some_images()
    found = family.likelihood(images, seeded_generator(3))
    data = dequantise(images, 4, torch.rand(images.shape, generator=seeded_generator(3))).double()
    log2_density = (-0.5 * (data.square() + math.log(2 * math.pi))).flatten(1).sum(1) / math.log(2)
    torch.testing.assert_close(found.bits, -(log2_density + 16 * math.log2(2 / 4)) / 16, rtol=1e-5, atol=1e-5)
    assert found.kind == "numerical"
    assert found.bits.dtype == torch.float64


def test_bits_of_patches_are_those_of_the_image():
    """Cutting into patches moves values and changes no volume: a field that stands still gives the same bits."""
    bits = []
    for patch_size in (1, 2):
        family = tiny(num_likelihood_steps=1, patch_size=patch_size)
        nn.init.zeros_(family.unet.conv_out.weight)
        nn.init.zeros_(family.unet.conv_out.bias)
        bits.append(family.likelihood(some_images(), seeded_generator(3)).bits)
    torch.testing.assert_close(bits[0], bits[1])


def test_the_probabilities_of_all_images_add_up_to_less_than_one():
    family = FlowMatching(grid(1, 2), Config(block_out_channels=(8,), num_likelihood_steps=8, num_probes=2, seed=3))
    with torch.no_grad():
        family.unet.conv_out.weight *= 10  # a field that really moves
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4)).view(16, 1, 1, 2).to(torch.uint8)
    bits = family.likelihood(pairs.repeat(15, 1, 1, 1), seeded_generator(0)).bits.view(15, 16).mean(0) * 2
    total = float((-bits).exp2().sum())
    assert 0.1 < total <= 1


def test_a_flow_that_shrinks_noise_into_the_grid_gives_almost_all_probability_to_it():
    """v = -2x turns N(0, I) into N(0, e^-4 I), nearly all of which lies in [-1, 1]: the 16 images share out almost 1."""
    family = FlowMatching(grid(1, 2, levels=16), Config(block_out_channels=(8,), num_likelihood_steps=40, num_probes=2))
    family.field = lambda x, t: -2 * x
    pairs = torch.cartesian_prod(torch.arange(16), torch.arange(16)).view(256, 1, 1, 2).to(torch.uint8)
    bits = family.likelihood(pairs.repeat(10, 1, 1, 1), seeded_generator(0)).bits.view(10, 256).mean(0) * 2
    total = float((-bits).exp2().sum())
    assert 0.9 < total <= 1


def test_the_saved_model_is_a_pipeline_of_diffusers_that_follows_the_same_field(tmp_path):
    family = tiny()
    family.save(tmp_path)
    pipeline = DDPMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    steps = 8
    made = pipeline(batch_size=3, generator=seeded_generator(0), num_inference_steps=steps, output_type="pt").images
    sigmas = [*pipeline.scheduler.sigmas.tolist()]
    x = family.noise(3, seeded_generator(0))
    with torch.no_grad():
        for here, there in itertools.pairwise(sigmas):
            x = x + (here - there) * family.field(x, 1 - here)
    torch.testing.assert_close(made, (x / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "key"), [({}, "num_likelihood_steps"), ({"class_conditional": True, "num_class_steps": 2}, "num_class_steps")]
)
def test_the_error_of_the_solver_is_what_twice_the_steps_change(values, key, tmp_path):
    torch.manual_seed(2)
    config = Config(**TINY, num_probes=4) if not values else Config(**TINY, **values)
    classes = ("a", "b") if values else ()
    family = FlowMatching(dataclasses.replace(grid(), classes=classes), config)
    context = make_context(tmp_path)
    _solver_error(context, family, some_images(), seeded_generator(1))
    bits = []
    for factor in (1, 2):
        family.config = config.model_copy(update={key: factor * getattr(config, key)})
        bits.append(family.likelihood(some_images(), seeded_generator(1)).bits)
    (row,) = context._metrics
    assert row["value"] == pytest.approx(float((bits[1] - bits[0]).mean()))
    assert row["value"] != 0


@pytest.mark.slow
def test_plain_diffusers_makes_our_samples_in_a_clean_process(tmp_path):
    """The loop that the model's README shows, run as it stands, without network and without Groundup."""
    family = FlowMatching(grid(8, 8, levels=17), Config(**TINY, patch_size=2, num_sample_steps=4))
    family.save(tmp_path / "model")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "model" / "README.md").read_text(), re.DOTALL)
    script = code.replace("FOLDER", repr(str(tmp_path / "model")))
    script += f"\nfrom safetensors.torch import save_file\nsave_file({{'images': images}}, {str(tmp_path / 'made')!r})\n"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, env=environment, cwd=tmp_path, timeout=200)
    from safetensors.torch import load_file

    made = load_file(tmp_path / "made")["images"]
    ours = family.sample(16, torch.Generator().manual_seed(0))
    assert float((made != ours).float().mean()) < 0.01  # rounding may move a value over the border of a bin


@pytest.mark.slow
def test_the_stage_runs_and_leaves_pictures_and_numbers(tmp_path):
    images = toy_artifact(tmp_path / "images", num=32)
    values = TINY | {
        "budget_tflop": 0.0005,
        "batch_size": 8,
        "num_samples": 4,
        "num_sample_steps": 2,
        "num_likelihood_images": 3,
        "num_likelihood_steps": 2,
        "num_probes": 1,
    }
    artifact = run_stage("stages.image.flow_matching", tmp_path / "out", values, {"images": images})
    names = {path.name for path in (artifact.path / "figures").iterdir()}
    assert {"trajectories.png", "steps.png", "steps.svg", "loss.svg", "morph.png"} <= names
    found = {row["name"]: row for row in artifact.record.metrics}
    assert found["bits_per_dim"]["kind"] == "numerical"
    assert found["likelihood_solver_change"]["n"] == 16
    assert found["num_function_evaluations"]["value"] == 4
