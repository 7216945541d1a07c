"""The VAE: probabilities that sum to one, bounds in their order, draws that follow the probabilities, and its artifact."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch.distributions import Categorical as Categories
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence

from pipeline.errors import DataError, RecipeError
from stages.common.images.grid import Grid, centres
from stages.common.images.noise import seeded_generator, whole_batch
from stages.image.vae.bounds import iwae_bound, kl_to_normal, kl_to_prior, log_weights
from stages.image.vae.config import Config
from stages.image.vae.latent_space import leading_directions, paths, smoothness, unit_name, unit_use
from stages.image.vae.model import VAE
from stages.image.vae.networks import SmallAutoencoder
from stages.image.vae.pixels import Categorical, DiscretisedLogistic
from stages.image.vae.prior import MixturePrior, StandardPrior
from tests.harness import run_stage
from tests.image.digits import toy_artifact

SMALL = {
    "hidden_size": 4,
    "encoder_hidden_size": 4,
    "num_levels": 1,
    "latent_channels": 2,
    "num_importance_samples": 16,
    "dropout": 0.0,
    "prior_components": 3,
}
STANDARD = {"prior_components": 1}
KL = {"architecture": "autoencoder_kl", "hidden_size": 16, "num_levels": 1, "latent_channels": 2, "num_importance_samples": 4}


def grid_of(levels=3, channels=1, height=2, width=2):
    empty = dict.fromkeys(("train", "validation", "test"), 0)
    return Grid(
        name="toy",
        license="cc0-1.0",
        levels=levels,
        channels=channels,
        height=height,
        width=width,
        classes=(),
        sizes=empty,
        sha256={},
    )


def config_of(**values):
    return Config.parse(values if "architecture" in values else SMALL | values, where="test")


def vae_of(grid, scale=0.5, **values):
    """A VAE whose every weight is drawn anew, so that decoder and encoder say something."""
    vae = VAE(grid, config_of(**values))
    generator = seeded_generator(3)
    with torch.no_grad():
        for parameter in vae.network.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return vae


def all_images(grid):
    return torch.tensor(list(itertools.product(range(grid.levels), repeat=grid.num_dims)), dtype=torch.uint8).view(
        -1, *grid.shape
    )


def random_images(grid, num=6):
    return torch.randint(grid.levels, (num, *grid.shape), generator=seeded_generator(4)).to(torch.uint8)


def exact_log_prob(vae, images):
    """ln P(x) by summing p(x | z)·p(z) over a fine mesh of a one-dimensional latent."""
    mesh = torch.linspace(-9, 9, 3001, dtype=torch.float64)
    outputs = vae.network.decode(mesh.float().view(-1, 1, 1, 1)).sample
    prior = vae.network.prior.log_prob(mesh.view(-1, 1, 1, 1)).detach() + math.log(float(mesh[1] - mesh[0]))
    found = [vae.pixels.log_prob(outputs, image.expand(len(mesh), *image.shape)).double().flatten(1).sum(1) for image in images]
    return torch.logsumexp(torch.stack(found) + prior, dim=1)


def test_the_probabilities_of_all_images_of_two_pixels_sum_to_one():
    grid = grid_of(levels=4, height=1, width=2)
    images = all_images(grid)
    outputs = 3 * torch.randn(1, 4, 1, 2, generator=seeded_generator(1))
    log_probs = Categorical(4, 1).log_prob(outputs.expand(len(images), -1, -1, -1), images)
    assert len(images) == 16
    assert log_probs.flatten(1).sum(1).exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 40, 256])
@pytest.mark.parametrize("log_scale", [-9.0, -5.0, -1.0, 3.0])
@pytest.mark.parametrize("centre", [-3.0, -0.999, 0.0, 0.3, 5.0])
def test_a_discretised_logistic_sums_to_one_over_its_levels(levels, log_scale, centre):
    outputs = torch.tensor([centre, log_scale], dtype=torch.float64).view(1, 2, 1, 1).expand(levels, -1, -1, -1)
    images = torch.arange(levels, dtype=torch.uint8).view(-1, 1, 1, 1)
    log_probs = DiscretisedLogistic(levels, 1).log_prob(outputs, images)
    assert torch.isfinite(log_probs).all()
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_discretised_logistic_of_one_channel_does_not_read_the_numbers_of_another():
    pixels = DiscretisedLogistic(256, 2)
    outputs = torch.randn(1, 4, 1, 1, generator=seeded_generator(1))
    image = torch.tensor([10, 200], dtype=torch.uint8).view(1, 2, 1, 1)
    changed = outputs.clone()
    changed[:, :2] += 0.5  # centre and scale of channel 0
    before, after = pixels.log_prob(outputs, image), pixels.log_prob(changed, image)
    assert before[0, 1] == after[0, 1]
    assert before[0, 0] != after[0, 0]


@pytest.mark.parametrize(("pixels", "numbers"), [(Categorical(5, 1), 5), (DiscretisedLogistic(256, 1), 2)])
def test_draws_follow_the_probabilities(pixels, numbers):
    num = 40_000
    outputs = 0.7 * torch.randn(1, numbers, 1, 1, generator=seeded_generator(2)).double()
    uniform = ((torch.arange(num) + 0.5) / num).view(num, 1, 1, 1).double()  # every part of [0, 1) once: no chance involved
    drawn = pixels.sample(outputs.expand(num, -1, -1, -1), uniform)
    levels = torch.arange(pixels.levels, dtype=torch.uint8).view(-1, 1, 1, 1)
    expected = pixels.log_prob(outputs.expand(pixels.levels, -1, -1, -1), levels).exp().flatten()
    found = torch.bincount(drawn.flatten().long(), minlength=pixels.levels) / num
    assert torch.allclose(found.double(), expected, atol=2.5 / num)


def test_the_mean_of_a_categorical_is_its_expected_level_not_its_likeliest():
    outputs = torch.tensor([0.5, 1e-9, 0.0, 0.0, 0.5]).clamp_min(1e-9).log().view(1, 5, 1, 1)
    assert Categorical(5, 1).mean(outputs).item() == pytest.approx(2, abs=1e-6)


def test_kl_is_that_of_torch_distributions():
    mean, logvar = torch.randn(2, 7, 3, generator=seeded_generator(1)).double()
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(torch.zeros_like(mean), torch.ones_like(mean)))
    zero = torch.zeros_like(mean)
    assert torch.allclose(kl_to_normal(mean, logvar, zero, zero), expected)
    to_mean, to_logvar = torch.randn(2, 7, 3, generator=seeded_generator(2)).double()
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(to_mean, (to_logvar / 2).exp()))
    assert torch.allclose(kl_to_normal(mean, logvar, to_mean, to_logvar), expected)


def mixture(num_components=4, latent_channels=2):
    prior = MixturePrior(latent_channels, num_components)
    generator = seeded_generator(5)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return prior


def as_torch(prior):
    """The same mixture as an object of torch.distributions."""
    scales = (prior.logvar.double() / 2).exp()
    components = Independent(Normal(prior.mean.double(), scales), 1)
    return MixtureSameFamily(Categories(logits=prior.logits.double()), components)


def test_a_mixture_prior_has_the_density_and_moments_of_torch_distributions():
    prior, latents = mixture(), torch.randn(50, 2, 1, 1, generator=seeded_generator(1)).double()
    assert torch.allclose(prior.log_prob(latents), as_torch(prior).log_prob(latents.flatten(1)))
    mean, logvar = prior.moments((2, 1, 1))
    assert torch.allclose(mean.flatten().double(), as_torch(prior).mean, atol=1e-6)
    assert torch.allclose(logvar.flatten().exp().double(), as_torch(prior).variance, atol=1e-5)


def test_draws_from_a_mixture_prior_have_its_moments():
    prior = mixture()
    drawn = prior.draw(torch.randn(100_000, 2, 1, 1, generator=seeded_generator(1)), seeded_generator(2))
    mean, logvar = prior.moments((2, 1, 1))
    assert torch.allclose(drawn.mean(dim=0), mean, atol=0.02)
    assert torch.allclose(drawn.var(dim=0), logvar.exp(), rtol=0.03)


def test_the_divergence_to_a_mixture_of_equals_is_right_on_average():
    prior = MixturePrior(2, 3)
    with torch.no_grad():
        prior.mean.zero_()
        prior.logvar.zero_()  # three times N(0, 1) is N(0, 1), whose divergence is known
    mean, logvar = (x.expand(40_000, -1, -1, -1) for x in torch.randn(2, 1, 2, 1, 1, generator=seeded_generator(1)))
    latents = mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=seeded_generator(2))
    exact = kl_to_prior(StandardPrior(), mean, logvar, latents)
    assert kl_to_prior(prior, mean, logvar, latents).mean().item() == pytest.approx(exact[0].item(), abs=0.03)


def test_dropout_silences_the_same_maps_for_the_same_noise_and_none_outside_training():
    grid = grid_of()
    images = random_images(grid)
    player = vae_of(grid, dropout=0.5).players()["vae"]
    plain = vae_of(grid).players()["vae"]
    first, again, other = (player(images, torch.zeros(6), whole_batch(6, seed))["loss"] for seed in (7, 7, 8))
    assert first == again
    assert first not in (other, plain(images, torch.zeros(6), whole_batch(6, 7))["loss"])
    dropping, without = (vae_of(grid, dropout=share).likelihood(images, seeded_generator(1)).bits for share in (0.5, 0.0))
    assert torch.equal(dropping, without)


@pytest.mark.parametrize("key", ["encoder_hidden_size", "dropout", "prior_components"])
def test_what_changes_nothing_in_the_larger_architecture_is_refused(key):
    with pytest.raises(RecipeError, match=f"{key} changes nothing with architecture: autoencoder_kl"):
        Config.parse(KL | {key: 0.5 if key == "dropout" else 2}, where="test")


def test_the_model_is_a_distribution_over_all_images():
    grid = grid_of()
    vae = vae_of(grid, latent_channels=1)
    assert exact_log_prob(vae, all_images(grid)).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_elbo_is_below_iwae_which_is_below_the_exact_log_probability():
    grid = grid_of()
    vae = vae_of(grid, latent_channels=1)
    with torch.no_grad():
        for parameter in vae.network.encoder.parameters():
            parameter.mul_(0.5)  # an encoder that is wrong, but not so wrong that 16,384 draws miss the posterior
    images = random_images(grid)
    weights = log_weights(vae.network, vae.pixels, images, 16_384, seeded_generator(1))
    exact = exact_log_prob(vae, images)
    bounds = [iwae_bound(weights, k) for k in (1, 16, 128, 16_384)]
    for looser, tighter in itertools.pairwise(bounds):
        assert (looser <= tighter + 1e-9).all()
    assert (bounds[0] < exact - 0.01).all()  # this encoder is a poor guess, so that the order means something
    assert torch.allclose(bounds[-1], exact, atol=0.06)
    assert bounds[-1].mean().item() <= exact.mean().item() + 0.01  # by chance alone can it be above


def test_weights_of_the_exact_posterior_are_all_the_same_number():
    # A decoder that ignores its latent has the prior as posterior; an encoder that says so makes every weight P(x).
    vae = vae_of(grid_of(), **STANDARD)
    with torch.no_grad():
        for parameter in [*vae.network.decoder.unflatten.parameters(), *vae.network.encoder.parameters()]:
            parameter.zero_()
    weights = log_weights(vae.network, vae.pixels, random_images(vae.grid), 8, seeded_generator(1))
    assert torch.allclose(weights, weights[:, :1].expand(-1, 8), atol=1e-5)


def test_groups_that_do_not_divide_the_weights_are_refused():
    with pytest.raises(DataError, match="k is 3: 8 weights"):
        iwae_bound(torch.zeros(2, 8), 3)


def test_the_loss_is_minus_the_elbo_in_bits_per_dimension():
    grid = grid_of(levels=5, channels=3)
    vae, images = vae_of(grid, **STANDARD), random_images(grid)
    (player,) = vae.players().values()
    losses = player(images, torch.zeros(len(images)), whole_batch(len(images), 7))
    posterior = vae.network.encode(centres(images, 5)).latent_dist
    q = Normal(posterior.mean, posterior.std)
    latents = q.mean + q.stddev * whole_batch(len(images), 7).normal(2, 1, 1)
    logits = vae.network.decode(latents).sample.unflatten(1, (3, 5))
    log_likelihood = logits.log_softmax(2).gather(2, images.long().unsqueeze(2)).sum()
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum()
    num_values = len(images) * grid.num_dims
    assert losses["loss"].item() == pytest.approx((kl - log_likelihood).item() / num_values / math.log(2), rel=1e-5)
    assert losses["kl"].item() == pytest.approx(kl.item() / num_values / math.log(2), rel=1e-5)
    assert (losses["reconstruction"] + losses["kl"]).item() == pytest.approx(losses["loss"].item(), rel=1e-6)


def test_beta_weighs_the_divergence_in_the_loss_and_changes_no_reported_term():
    grid = grid_of()
    plain, weighted = (vae_of(grid, beta=beta).players()["vae"] for beta in (1.0, 3.0))
    images = random_images(grid)
    a, b = (player(images, torch.zeros(6), whole_batch(6, 7)) for player in (plain, weighted))
    assert (b["loss"] - a["loss"]).item() == pytest.approx(2 * a["kl"].item(), rel=1e-5)
    assert a["kl"] == b["kl"]
    assert a["reconstruction"] == b["reconstruction"]


@pytest.mark.parametrize(("values", "levels"), [(SMALL, 3), (SMALL, 256), (KL, 4)])
def test_gradient_reaches_every_parameter(values, levels):
    grid = grid_of(levels=levels, height=8, width=8)
    vae = vae_of(grid, scale=0.1, **values)
    (player,) = vae.players().values()
    player(random_images(grid), torch.zeros(6), whole_batch(6, 7))["loss"].backward()
    for name, parameter in player.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # A bias before a normalisation, or of a key, cannot change the output; its gradient is rounding.
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("levels", [4, 256])
def test_samples_are_on_the_grid_and_a_pure_function_of_the_generator(levels):
    vae = vae_of(grid_of(levels=levels))
    mean = vae.sample_sets()["mean"]
    for sampler in (vae.sample, mean):
        images = sampler(20, seeded_generator(1))
        assert images.dtype == torch.uint8
        assert images.shape == (20, 1, 2, 2)
        assert int(images.max()) < levels
        assert torch.equal(images, sampler(20, seeded_generator(1)))
        assert not torch.equal(images, sampler(20, seeded_generator(2)))
    assert not torch.equal(vae.sample(20, seeded_generator(1)), mean(20, seeded_generator(1)))


def test_a_sample_is_a_draw_and_not_the_mean():
    vae = vae_of(grid_of(levels=4), scale=0.2)
    generator = seeded_generator(3)
    latents = vae.prior(50, generator)
    drawn = vae.draw(latents, generator)
    assert torch.equal(vae.sample(50, seeded_generator(3)), drawn)
    assert torch.equal(vae.sample_sets()["mean"](50, seeded_generator(3)), vae.mean(latents).round().to(torch.uint8))
    assert drawn.float().std() > 2 * vae.mean(latents).std(), "means are nearer to grey than images are"


def test_no_set_of_samples_reads_the_encoder():
    """What is measured are draws from the prior: reconstructions of real images would flatter a model."""
    vae = vae_of(grid_of(levels=4))
    whole = {name: sampler(20, seeded_generator(3)) for name, sampler in vae.sample_sets().items()} | {
        "": vae.sample(20, seeded_generator(3))
    }
    for parameter in vae.network.encoder.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    for name, images in whole.items():
        assert torch.equal(images, (vae.sample_sets().get(name) or vae.sample)(20, seeded_generator(3)))


def test_draws_average_to_the_mean_of_the_same_latent():
    vae = vae_of(grid_of(levels=8))
    latent = vae.prior(1, seeded_generator(1)).expand(20_000, -1, -1, -1)
    drawn = vae.draw(latent, seeded_generator(2)).float().mean(dim=0)
    assert torch.allclose(drawn, vae.mean(latent[:1])[0], atol=0.1)


def test_likelihood_is_a_bound_in_bits_per_dimension_and_does_not_depend_on_the_size_of_chunks(monkeypatch):
    vae = vae_of(grid_of())
    images = random_images(vae.grid)
    found = vae.likelihood(images, seeded_generator(1))
    assert (found.kind, found.detail) == ("lower bound", "IWAE, k = 16")
    assert found.bits.dtype == torch.float64
    weights = vae.log_weights(images, seeded_generator(1))
    expected = -(weights.exp().mean(dim=1).log() / math.log(2)) / 4
    assert torch.allclose(found.bits, expected)
    monkeypatch.setattr("stages.image.vae.bounds.ROWS_AT_ONCE", 5)
    assert torch.allclose(vae.likelihood(images, seeded_generator(1)).bits, found.bits, atol=1e-6)


def test_a_saved_model_gives_the_same_likelihood(tmp_path):
    vae = vae_of(grid_of())
    vae.save(tmp_path / "model")
    other = VAE(vae.grid, config_of())
    images = random_images(vae.grid)
    before = other.likelihood(images, seeded_generator(1)).bits
    other.network = SmallAutoencoder.from_pretrained(tmp_path / "model")
    after = other.likelihood(images, seeded_generator(1)).bits
    assert torch.allclose(after, vae.likelihood(images, seeded_generator(1)).bits, atol=1e-6)
    assert not torch.allclose(after, before, atol=1e-2)


@pytest.mark.slow
def test_the_larger_architecture_loads_with_plain_diffusers_in_a_clean_process(tmp_path):
    vae = vae_of(grid_of(levels=256, channels=3, height=16, width=16), scale=0.1, **KL)
    vae.save(tmp_path / "model")
    latents = vae.prior(2, seeded_generator(1))
    program = (
        "import sys, torch; from diffusers import AutoencoderKL\n"
        "model = AutoencoderKL.from_pretrained(sys.argv[1])\n"
        "assert not any(name.startswith(('stages', 'pipeline')) for name in sys.modules)\n"
        f"latents = torch.tensor({latents.flatten().tolist()}).view(2, 2, 8, 8)\n"
        "with torch.no_grad(): print(float(model.decode(latents).sample.double().sum()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model")], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = float(vae.network.decode(latents).sample.double().sum())
    assert float(done.stdout) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "values", "named"),
    [
        ({"levels": 1}, {}, "levels is 1"),
        ({"height": 3}, {}, "height 3 is not a multiple of 2"),
        ({"height": 7, "width": 8}, KL, "height 7 is not a multiple of 2"),
        ({"height": 8, "width": 8}, KL | {"hidden_size": 20}, "hidden_size 20 is not a multiple of 16"),
    ],
)
def test_images_that_cannot_be_modelled_are_refused_by_name(shape, values, named):
    with pytest.raises(DataError, match=named):
        VAE(grid_of(**shape), config_of(**values))


def test_a_path_is_at_least_as_long_as_the_distance_of_its_ends():
    vae = vae_of(grid_of(levels=8), scale=1.0)
    found = smoothness(paths(vae, torch.randn(20, 2, 1, 1, generator=seeded_generator(1))), seed=0)
    assert found.num_pairs == 10
    assert found.path_ratio >= 1
    assert found.path_interval[0] <= found.path_ratio <= found.path_interval[1]
    assert found.largest_step >= 1


def test_a_path_leads_from_the_mean_of_one_image_to_that_of_its_partner():
    vae, latents = vae_of(grid_of(levels=8), scale=1.0), torch.randn(7, 2, 1, 1, generator=seeded_generator(1))
    found = paths(vae, latents)
    assert found.shape == (3, 33, 1, 2, 2)
    assert torch.allclose(found[:, 0], vae.mean(latents[:3]), atol=1e-5)
    assert torch.allclose(found[:, -1], vae.mean(latents[3:6]), atol=1e-5)


def test_a_unit_is_active_only_when_its_mean_depends_on_the_image():
    means = torch.tensor([[1.0, 0.5, 0.0], [-1.0, 0.5, 0.1]])[:, :, None, None]
    prior = StandardPrior().moments((3, 1, 1))
    units = unit_use(means, torch.tensor([-2.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(2, -1, -1, -1), prior)
    assert units.num_active == 1
    assert units.order == [0, 1, 2]
    assert units.kl[1].item() == pytest.approx(0.125)  # a constant shift of the mean costs KL and says nothing


def test_a_unit_on_a_map_is_named_with_its_place():
    assert unit_name(5, (8, 1, 1)) == "unit 5"
    assert [unit_name(unit, (2, 2, 3)) for unit in (0, 5, 9)] == ["unit 0 at (0, 0)", "unit 0 at (1, 2)", "unit 1 at (1, 0)"]


def test_leading_directions_are_those_in_which_latents_differ_most_one_deviation_long():
    generator = seeded_generator(4)
    shape, spread = (2, 2, 2), torch.tensor([3.0, 0.5])
    axes = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0][:2]
    latents = (torch.randn(4000, 2, generator=generator) * spread) @ axes + 1.0
    found = leading_directions(latents.unflatten(1, shape), 2)
    assert found.shape == (2, *shape)
    assert found.flatten(1).norm(dim=1).tolist() == pytest.approx(spread.tolist(), rel=0.05)
    assert (found.flatten(1) @ axes.T).abs().diagonal().tolist() == pytest.approx(spread.tolist(), rel=0.05)


@pytest.mark.slow
def test_the_stage_leaves_samples_bounds_pictures_and_a_model(tmp_path):
    images = toy_artifact(tmp_path / "images")
    values = SMALL | {"budget_tflop": 1e-4, "batch_size": 16, "num_samples": 6, "num_likelihood_images": 4, "hidden_size": 8}
    artifact = run_stage("stages.image.vae", tmp_path / "vae", values, {"images": images})
    samples = load_file(artifact.path / "samples.safetensors")
    assert {"1/8", "1/4", "1/2", "1", "raw", "mean"} == set(samples)
    family = json.loads((artifact.path / "family.json").read_text())
    assert family["family"] == "vae"
    assert family["likelihood"] == {"kind": "lower bound", "detail": "IWAE, k = 16"}
    on_the_way = load_file(artifact.path / "paths.safetensors")["images"]
    assert (on_the_way.dtype, on_the_way.shape) == (torch.uint8, (16, 33, 1, 4, 4))
    names = {row["name"]: row for row in json.loads((artifact.path / "metrics.json").read_text())}
    assert {"bits_per_dim", "elbo_bits_per_dim", "active_units", "path_length_ratio"} <= set(names)
    for figure in ("draws_and_means.png", "traversal.png", "interpolation.png", "morph.png", "elbo.svg", "kl_by_unit.svg"):
        assert (artifact.path / "figures" / figure).stat().st_size > 0
    SmallAutoencoder.from_pretrained(artifact.path / "model")


@pytest.mark.slow
def test_the_stage_shows_latents_on_a_map_along_their_directions(tmp_path):
    images = toy_artifact(tmp_path / "images")
    values = KL | {"budget_tflop": 1e-3, "batch_size": 16, "num_samples": 6, "num_likelihood_images": 4}
    artifact = run_stage("stages.image.vae", tmp_path / "vae", values, {"images": images})
    assert (artifact.path / "figures" / "traversal.png").stat().st_size > 0
    assert "the directions in which the latents of test images differ most" in (artifact.path / "section.json").read_text()
    AutoencoderKL.from_pretrained(artifact.path / "model")


@pytest.mark.slow
def test_training_comes_far_below_independent_pixels_on_bars(tmp_path):
    images = toy_artifact(tmp_path / "images", num=512)
    values = {
        "budget_tflop": 0.08,
        "batch_size": 64,
        "hidden_size": 32,
        "latent_channels": 8,
        "num_levels": 1,
        "learning_rate": 3e-3,
        "num_samples": 8,
        "num_likelihood_images": 64,
    }
    vae = run_stage("stages.image.vae", tmp_path / "vae", values, {"images": images})
    bits = {
        row["split"]: row["value"] for row in json.loads((vae.path / "metrics.json").read_text()) if row["name"] == "bits_per_dim"
    }
    # Twelve of 16 values are noise of one bit and 4 are certain, given one of 8 places: (12 + 3) / 16 = 0.9375 bits/dim.
    assert 0.93 < bits["test"] < 1.1
