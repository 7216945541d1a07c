"""Diffusion: the noise schedule, the bound on the likelihood against cases worked out by hand, samples, saving."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMPipeline
from pydantic import ValidationError

from stages.common.images.grid import Grid, centres
from stages.common.images.noise import seeded_generator, whole_batch
from stages.image.diffusion.bound import decoder_nats, first_timestep, variational_bound
from stages.image.diffusion.config import Config
from stages.image.diffusion.model import Diffusion, denoised, make_scheduler
from stages.image.diffusion.networks import SquaredErrorTable
from tests.harness import run_stage
from tests.image.digits import toy_artifact

TINY = {"block_out_channels": (4, 8), "num_timesteps": 20, "num_sample_steps": 5}


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
    return Diffusion(grid(), Config(**TINY | values))


def some_images(num=6):
    return torch.randint(4, (num, 1, 4, 4), generator=seeded_generator(9)).to(torch.uint8)


def alphas(num_timesteps=200):
    return make_scheduler(Config(num_timesteps=num_timesteps, num_sample_steps=num_timesteps)).alphas_cumprod


@pytest.mark.parametrize("num_timesteps", [4, 50, 200, 1000])
def test_nothing_of_the_image_is_left_at_the_last_timestep(num_timesteps):
    assert float(alphas(num_timesteps)[-1]) < 1e-3


def test_samples_start_at_the_last_timestep_and_visit_each_once():
    scheduler = make_scheduler(Config())
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == list(range(199, 0, -4))


def test_steps_that_do_not_divide_the_timesteps_are_refused():
    with pytest.raises(ValidationError, match=r"num_sample_steps is 30: .* must divide num_timesteps \(200\)"):
        Config(num_sample_steps=30)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_true_answer_of_the_network_gives_back_the_image(prediction):
    scheduler = make_scheduler(Config(prediction=prediction))
    x = torch.rand(5, 1, 2, 2) * 2 - 1
    e, t = torch.randn(5, 1, 2, 2), torch.tensor([0, 3, 60, 120, 180])
    noisy = scheduler.add_noise(x, e, t)
    answer = e if prediction == "epsilon" else scheduler.get_velocity(x, e, t)
    clean = denoised(scheduler, answer, noisy, scheduler.alphas_cumprod[t].view(-1, 1, 1, 1))
    torch.testing.assert_close(clean, x, rtol=0, atol=1e-3)


def test_the_denoised_image_is_cut_to_the_range_of_the_data():
    scheduler = make_scheduler(Config())
    clean = denoised(scheduler, torch.full((1, 1, 1, 1), -9.0), torch.zeros(1, 1, 1, 1), scheduler.alphas_cumprod[100])
    assert clean.item() == 1
    assert scheduler.config.clip_sample
    assert scheduler.config.clip_sample_range == 1


@pytest.mark.parametrize(("levels", "at_zero"), [(4, False), (17, False), (256, True)])
def test_the_bound_starts_where_the_noise_reaches_half_a_bin(levels, at_zero):
    a = alphas()
    noise = ((1 - a) / a).sqrt()
    first = first_timestep(a, levels)
    assert float(noise[first]) >= 1 / levels
    assert (first == 0) == at_zero
    assert at_zero or float(noise[first - 1]) < 1 / levels


def gaussian_case(levels=64, deviation=0.25, num=4000):
    """Integers of a normal density cut into bins, the denoiser that is best for it, and its entropy in nats."""
    values = torch.arange(levels).view(-1, 1, 1, 1)
    edges = (torch.arange(levels + 1) * (2 / levels) - 1).double() / deviation
    edges[0], edges[-1] = -math.inf, math.inf
    chances = torch.special.ndtr(edges).diff()
    drawn = values[torch.multinomial(chances, num, replacement=True, generator=seeded_generator(0))]
    entropy = float(-(chances * chances.log()).sum())
    a, variance = alphas(), deviation**2

    def denoise(x, t):  # E[x | x_t] of a normal density, Bishop (2006), eq. 2.116
        return a[t].sqrt() * variance / (a[t] * variance + 1 - a[t]) * x

    def squared_error(t):
        return variance * (1 - a[t]) / (a[t] * variance + 1 - a[t])

    return drawn, denoise, squared_error, entropy


def test_the_bound_is_the_entropy_where_the_best_denoiser_is_known():
    """For a normal density every step of the way back is normal, so the bound with the best variances is tight."""
    drawn, denoise, squared_error, entropy = gaussian_case()
    bound = variational_bound(
        drawn, levels=64, alphas_cumprod=alphas(), denoise=denoise, squared_error=squared_error, generator=seeded_generator(1)
    )
    standard_error = float(bound.nats.std()) / math.sqrt(len(drawn))
    assert standard_error < 0.03
    assert float(bound.nats.mean()) == pytest.approx(entropy, abs=4 * standard_error + 0.01)


def test_fixed_variances_cost_more():
    """What the learnt variances are for: with the posterior's variance alone (Ho et al.) the same denoiser is worse."""
    drawn, denoise, squared_error, _ = gaussian_case()
    a = alphas()
    first = first_timestep(a, 64)

    def nats(error):
        bound = variational_bound(
            drawn, levels=64, alphas_cumprod=a, denoise=denoise, squared_error=error, generator=seeded_generator(1)
        )
        return float(sum(bound.steps.values()).mean())

    fixed = nats(lambda t: squared_error(t) if t == first else torch.tensor(1e-9))
    assert nats(squared_error) < fixed - 0.01


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_errors_that_are_not_the_true_ones_cost_more(factor):
    drawn, denoise, squared_error, _ = gaussian_case()

    def nats(scale):
        bound = variational_bound(
            drawn,
            levels=64,
            alphas_cumprod=alphas(),
            denoise=denoise,
            squared_error=lambda t: scale * squared_error(t),
            generator=seeded_generator(1),
        )
        return float(bound.nats.mean())

    assert nats(factor) > nats(1) + 0.05


def uniform_pairs_bound():
    """Bound and decoder's part, nats (16,), of all images of 2 values on 4 levels, with their best denoiser."""
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4)).view(16, 1, 1, 2)
    a, places = alphas(), centres(torch.arange(4), 4)

    def denoise(x, t):
        logits = -((x.unsqueeze(-1) - a[t].sqrt() * places) ** 2) / (2 * (1 - a[t]))
        return (logits.softmax(-1) * places).sum(-1)

    noise = torch.randn(4000, generator=seeded_generator(5))
    drawn = places[torch.randint(4, (4000,), generator=seeded_generator(6))]

    def squared_error(t):
        x = a[t].sqrt() * drawn + (1 - a[t]).sqrt() * noise
        return (drawn - denoise(x, t)).square().mean()

    bound = variational_bound(
        pairs.repeat(300, 1, 1, 1),
        levels=4,
        alphas_cumprod=a,
        denoise=denoise,
        squared_error=squared_error,
        generator=seeded_generator(7),
    )
    return bound.nats.view(300, 16).mean(0), bound.decoder.view(300, 16).mean(0)


def test_the_bounds_of_all_images_add_up_to_less_than_one_and_need_the_decoder_for_it():
    nats, decoder = uniform_pairs_bound()
    total = float((-nats).exp().sum())
    assert 0.6 < total <= 1.0
    assert float((-(nats - decoder)).exp().sum()) > 1  # without the last step it would be no probability


@pytest.mark.parametrize("scale", [1e-4, 0.05, 0.4, 30.0])
def test_the_decoder_is_a_distribution_over_the_levels(scale):
    values = torch.arange(17).view(-1, 1, 1, 1)
    for place in (-1.0, -0.31, 0.02, 0.999):
        nats = decoder_nats(values, torch.full((17, 1, 1, 1), place), torch.tensor(scale**2), 17)
        assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-6)
        assert bool(nats.isfinite().all())


def test_the_parts_of_the_bound_are_its_sum():
    bound = tiny().bound(some_images(), seeded_generator(0))
    parts = bound.prior + torch.stack(list(bound.steps.values())).sum(0) + bound.decoder
    torch.testing.assert_close(bound.nats, parts)
    assert bool((bound.prior >= 0).all())
    assert all(bool((nats >= -1e-6).all()) for nats in bound.steps.values())


def test_a_fresh_table_of_errors_is_that_of_normal_values():
    table = SquaredErrorTable(shape=(1, 2, 2), num_knots=4)
    found = table(torch.tensor([0.0, 1.0]), torch.tensor([0.9, 0.0]))
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([0.1 / 3 / (0.3 + 0.1), 1 / 3]))


def test_the_table_runs_straight_between_its_knots():
    table = SquaredErrorTable(shape=(1, 1, 1), num_knots=3)
    with torch.no_grad():
        table.table.copy_(torch.tensor([0.0, 0.1, 0.3]).view(3, 1, 1, 1))
    a = torch.full((5,), 0.5)
    logarithms = table(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]), a).log() - table(torch.zeros(5), a).log()
    torch.testing.assert_close(logarithms.flatten(), 10 * torch.tensor([0.0, 0.05, 0.1, 0.2, 0.3]))


def test_the_table_learns_the_mean_squared_error():
    family = tiny()
    player = family.players()["denoiser"]
    optimizer = torch.optim.Adam(family.errors.parameters(), lr=0.02)
    images = some_images(64)
    for step in range(45):
        losses = player(images, torch.zeros(64), whole_batch(64, step))
        optimizer.zero_grad()
        losses["error_fit"].backward()
        optimizer.step()
    t, a = 10, family.scheduler.alphas_cumprod[10]
    x = centres(images.repeat(6, 1, 1, 1), 4)
    e = torch.randn(x.shape, generator=seeded_generator(3))
    noisy = family.scheduler.add_noise(x, e, torch.full((len(x),), t))
    with torch.no_grad():
        clean = denoised(family.scheduler, family.unet(noisy, torch.tensor(t)).sample, noisy, a)
        expected = family.errors(torch.tensor([t / 19]), a)
    assert float((x - clean).square().mean()) == pytest.approx(float(expected.mean()), rel=0.15)


def test_a_gradient_reaches_every_parameter_and_the_fit_leaves_the_network_alone():
    family = tiny()
    player = family.players()["denoiser"]
    losses = player(some_images(8), torch.zeros(8), whole_batch(8, 0))
    alone = torch.autograd.grad(losses["error_fit"], list(family.unet.parameters()), retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in alone)
    losses["loss"].backward()
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in player.parameters())


def test_samples_are_on_the_grid_and_follow_from_the_generator():
    family = tiny()
    samples = family.sample(7, seeded_generator(1))
    assert samples.shape == (7, 1, 4, 4)
    assert samples.dtype == torch.uint8
    assert int(samples.max()) <= 3
    assert torch.equal(samples, family.sample(7, seeded_generator(1)))
    assert not torch.equal(samples, family.sample(7, seeded_generator(2)))


def test_more_images_than_fit_at_once_are_made_in_parts():
    family = tiny(num_sample_steps=1)
    assert family.sample(251, seeded_generator(0)).shape == (251, 1, 4, 4)


def test_function_evaluations_are_the_calls_of_the_network():
    family, calls = tiny(), []
    family.unet.register_forward_hook(lambda *_: calls.append(1))
    family.sample(2, seeded_generator(0))
    assert family.num_function_evaluations == len(calls) == 5


def test_shorter_paths_take_as_many_calls_as_they_say():
    family, calls = tiny(num_sample_steps=20), []
    family.unet.register_forward_hook(lambda *_: calls.append(1))
    found = family.shorter_paths()
    assert list(found) == [5, 10]
    for number, sampler in found.items():
        calls.clear()
        assert sampler(3, torch.Generator().manual_seed(0)).shape == (3, 1, 4, 4)
        assert len(calls) == number


def test_the_likelihood_is_a_bound_and_says_so():
    family = tiny()
    found = family.likelihood(some_images(3), seeded_generator(0))
    assert found.kind == "lower bound"
    assert found.bits.shape == (3,)
    assert found.bits.dtype == torch.float64
    assert torch.equal(found.bits, family.likelihood(some_images(3), seeded_generator(0)).bits)


def test_the_saved_model_loads_as_the_deterministic_sampler_of_diffusers_too(tmp_path):
    family = tiny()
    family.save(tmp_path)
    pipeline = DDIMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(batch_size=2, generator=seeded_generator(0), num_inference_steps=5, output_type="pt").images.shape == (
        2,
        1,
        4,
        4,
    )
    first, made = torch.randn(2, 1, 4, 4, generator=seeded_generator(1)), []
    for seed in (2, 3):  # eta is 0: after the first noise no more is drawn, so the generator of the steps changes nothing
        pipeline.scheduler.set_timesteps(5)
        x = first
        for t in pipeline.scheduler.timesteps:
            with torch.no_grad():
                x = pipeline.scheduler.step(pipeline.unet(x, t).sample, t, x, generator=seeded_generator(seed)).prev_sample
        made.append(x)
    assert torch.equal(*made)
    assert torch.equal(SquaredErrorTable.from_pretrained(tmp_path / "errors").table, family.errors.table)


@pytest.mark.slow
def test_plain_diffusers_makes_our_samples_in_a_clean_process(tmp_path):
    """What the model's README shows, run as it stands, without network and without Groundup."""
    family = Diffusion(grid(8, 8, levels=17), Config(**TINY, patch_size=2))
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
    values = TINY | {"budget_tflop": 0.0005, "batch_size": 8, "num_samples": 4, "num_likelihood_images": 3}
    artifact = run_stage("stages.image.diffusion", tmp_path / "out", values, {"images": images})
    names = {path.name for path in (artifact.path / "figures").iterdir()}
    assert {"noising.png", "denoising.png", "steps.png", "bits_by_timestep.svg", "loss.svg"} <= names
    found = {row["name"]: row for row in artifact.record.metrics}
    assert found["bits_per_dim"]["kind"] == "lower bound"
    assert found["num_function_evaluations"]["value"] == 5
