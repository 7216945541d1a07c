"""Classic densities against their closed forms, against scikit-learn, and against each other."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from sklearn import mixture

from pipeline.errors import DataError
from stages.common.images.grid import Grid, centres
from stages.common.images.noise import seeded_generator
from stages.image.classic.config import Config
from stages.image.classic.densities import GaussianMixture, IndependentPixels, ProbabilisticPCA, dequantised_bits
from stages.image.classic.fitting import fit_gaussian, fit_independent, fit_mixture, fit_ppca
from stages.image.classic.model import fit
from tests.harness import run_stage
from tests.image.digits import toy_artifact


def grid_of(levels=8, height=2, width=3):
    empty = dict.fromkeys(("train", "validation", "test"), 0)
    return Grid(
        name="toy", license="cc0-1.0", levels=levels, channels=1, height=height, width=width, classes=(), sizes=empty, sha256={}
    )


def correlated_images(grid, num=400):
    """Images whose values lie near a line, plus noise."""
    generator = seeded_generator(1)
    shared = torch.randn(num, 1, 1, 1, generator=generator)
    own = torch.randn(num, *grid.shape, generator=generator)
    return (grid.levels / 2 + 1.2 * shared + 0.6 * own).floor().clamp(0, grid.levels - 1).to(torch.uint8)


def config_of(**values):
    return Config.parse({"num_components": 2} | values, where="test")


def test_independent_pixels_cost_the_empirical_entropy():
    images = correlated_images(grid_of(), num=200)
    model = fit_independent(images, 8, smoothing=0.0)
    mean_bits = -model.log_prob(images.flatten(1)).mean().item() / math.log(2)
    entropy = 0.0
    for values in images.flatten(1).T:
        shares = torch.bincount(values.long(), minlength=8).double() / len(values)
        entropy -= sum(share * math.log2(share) for share in shares.tolist() if share)
    assert mean_bits == pytest.approx(entropy, rel=1e-12)


def test_smoothing_adds_one_to_every_count():
    images = torch.tensor([0, 0, 1], dtype=torch.uint8).view(3, 1, 1, 1)
    assert fit_independent(images, 4, smoothing=1.0).probabilities[0].tolist() == pytest.approx([3 / 7, 2 / 7, 1 / 7, 1 / 7])


def test_a_uniform_model_costs_exactly_the_logarithm_of_the_levels():
    images = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(-1, 1, 2, 3)
    model = fit(config_of(model="independent"), grid_of(), images, images)
    found = model.likelihood(images, seeded_generator(1))
    assert found.kind == "exact"
    assert torch.allclose(found.bits, torch.full((8,), 3.0, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_uniform_density_through_dequantisation_costs_the_logarithm_of_the_levels():
    class Uniform:
        def log_prob(self, values):
            inside = (values >= -1) & (values < 1)
            return torch.where(inside, -math.log(2.0), -math.inf).double().sum(dim=1)

    images = correlated_images(grid_of(), num=5)
    bits = dequantised_bits(Uniform(), images, grid_of(), 4, seeded_generator(1))
    assert torch.allclose(bits, torch.full((5,), 3.0, dtype=torch.float64), atol=1e-12)


def test_a_gaussian_of_a_linear_gaussian_toy_costs_the_analytic_entropy():
    # y = A z with known covariance, on so fine a grid that the bins do not matter: h(y) = 0.5·log2 det(2πe Σ) bits.
    grid = grid_of(levels=256, height=1, width=2)
    mixing = torch.tensor([[0.15, 0.0], [0.1, 0.1]])
    values = torch.randn(20_000, 2, generator=seeded_generator(1)) @ mixing.T
    images = ((values + 1) * 128).floor().clamp(0, 255).to(torch.uint8).view(-1, 1, 1, 2)
    model = fit_gaussian(images, grid, ridge=0.0)
    bits = dequantised_bits(model, images, grid, 4, seeded_generator(2)).mean().item()
    covariance = (mixing @ mixing.T).double()
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance).item() / math.log(2)
    assert bits == pytest.approx(entropy / 2 - math.log2(2 / 256), abs=0.01)


def test_a_gaussian_takes_in_the_noise_of_bins_exactly():
    grid, images = grid_of(), correlated_images(grid_of())
    model = fit_gaussian(images, grid, ridge=0.0)
    noise = torch.rand(200, *images.shape, generator=seeded_generator(1), dtype=torch.float64)
    values = ((images + noise) * (2 / 8) - 1).flatten(2).flatten(0, 1)
    covariance = model.cholesky_factors[0] @ model.cholesky_factors[0].T
    assert torch.allclose(covariance, torch.cov(values.T, correction=0), atol=3e-3)
    assert torch.allclose(model.means[0], values.mean(dim=0), atol=1e-3)


def test_more_draws_of_noise_make_the_bound_tighter():
    grid, images = grid_of(), correlated_images(grid_of(), num=50)
    model = fit_gaussian(images, grid, ridge=0.0)
    loose, tight = (dequantised_bits(model, images, grid, k, seeded_generator(1)).mean().item() for k in (1, 64))
    assert tight < loose - 0.005


def test_a_mixture_scores_as_scikit_learn_does():
    grid, images = grid_of(), correlated_images(grid_of())
    model, iterations = fit_mixture(images, grid, 0.01, num_components=3, max_iterations=50, seed=0)
    values = centres(images, 8).flatten(1).double()
    oracle = mixture.GaussianMixture(3)
    oracle.weights_, oracle.means_ = model.weights.numpy(), model.means.numpy()
    oracle.precisions_cholesky_ = torch.linalg.inv(model.cholesky_factors).transpose(1, 2).numpy()
    assert torch.allclose(model.log_prob(values), torch.from_numpy(oracle.score_samples(values.numpy())), atol=1e-9)
    assert iterations > 0


def test_one_gaussian_of_a_mixture_is_the_gaussian():
    grid, images = grid_of(), correlated_images(grid_of())
    one, _ = fit_mixture(images, grid, 0.02, num_components=1, max_iterations=50, seed=0)
    values = centres(images, 8).flatten(1).double()
    assert torch.allclose(one.log_prob(values), fit_gaussian(images, grid, 0.02).log_prob(values), atol=1e-8)


def test_ppca_scores_as_a_gaussian_of_its_covariance_does():
    grid, images = grid_of(), correlated_images(grid_of())
    model = fit_ppca(images, grid, 0.0, num_components=2)
    covariance = model.directions @ model.directions.T + model.noise_variance * torch.eye(6, dtype=torch.float64)
    gaussian = GaussianMixture(num_dims=6, num_components=1)
    gaussian.weights.fill_(1)
    gaussian.means.copy_(model.mean[None])
    gaussian.cholesky_factors.copy_(torch.linalg.cholesky(covariance)[None])
    values = centres(images, 8).flatten(1).double()
    assert torch.allclose(model.log_prob(values), gaussian.log_prob(values), atol=1e-9)


def test_ppca_keeps_the_largest_variances_and_averages_the_others():
    grid, images = grid_of(), correlated_images(grid_of())
    model = fit_ppca(images, grid, 0.0, num_components=2)
    factor = fit_gaussian(images, grid, 0.0).cholesky_factors[0]
    full = torch.linalg.eigvalsh(factor @ factor.T)
    covariance = model.directions @ model.directions.T + model.noise_variance * torch.eye(6, dtype=torch.float64)
    found = torch.linalg.eigvalsh(covariance)
    assert torch.allclose(found[-2:], full[-2:])
    assert torch.allclose(found[:-2], full[:-2].mean().expand(4))


@pytest.mark.parametrize("model", ["gaussian", "ppca", "gmm"])
def test_draws_have_the_mean_and_covariance_of_the_density(model):
    grid = grid_of()
    fitted = fit(config_of(model=model, ridges=(0.0,)), grid, correlated_images(grid), correlated_images(grid))
    values = fitted.density.draw(40_000, seeded_generator(3))
    again = fitted.density.draw(40_000, seeded_generator(3))
    assert torch.equal(values, again)
    data = centres(correlated_images(grid), 8).flatten(1).double()
    assert torch.allclose(values.mean(dim=0), data.mean(dim=0), atol=0.01)
    if model != "ppca":
        noise = (2 / 8) ** 2 / 12 * torch.eye(6, dtype=torch.float64)
        assert torch.allclose(torch.cov(values.T), torch.cov(data.T) + noise, atol=0.01)


@pytest.mark.parametrize("model", ["independent", "gaussian", "ppca", "gmm"])
def test_constant_pixels_and_constant_images_have_a_finite_cost(model):
    grid = grid_of()
    images = correlated_images(grid, num=40)
    images[:, :, 0] = 3
    for data in (images, torch.full_like(images, 3)):
        fitted = fit(config_of(model=model), grid, data, data)
        bits = fitted.likelihood(data, seeded_generator(1)).bits
        assert torch.isfinite(bits).all()
        samples = fitted.sample(50, seeded_generator(2))
        assert samples.dtype == torch.uint8
        assert samples.max() < 8


def test_the_ridge_with_the_fewest_bits_on_validation_is_kept():
    grid = grid_of()
    images = correlated_images(grid, num=40)
    told = []
    config = config_of(model="gmm", num_components=8, ridges=(0.0, 0.1, 50.0))
    fitted = fit(config, grid, images[:20], images[20:], tell=told.append)
    assert told == [0, 1, 2, 3]
    bits = [trial.bits for trial in fitted.trials]
    assert fitted.best is fitted.trials[bits.index(min(bits))]
    assert fitted.best.ridge == 0.1  # too little learns 20 images by heart, too much forgets them
    again = dequantised_bits(fitted.density, images[20:], grid, 32, seeded_generator(9)).mean().item()
    assert again == pytest.approx(min(bits), abs=0.05)


@pytest.mark.parametrize(
    ("values", "levels", "num", "named"),
    [
        ({"model": "gaussian"}, 1, 4, "levels is 1"),
        ({"model": "gmm", "num_components": 5}, 8, 4, "num_components is 5, but 4 images"),
        ({"model": "ppca", "num_components": 6}, 8, 4, "num_components is 6: ppca needs fewer"),
        ({"model": "gaussian"}, 8, 0, "train has 0 images"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(values, levels, num, named):
    images = torch.zeros(num, 1, 2, 3, dtype=torch.uint8)
    with pytest.raises(DataError, match=named):
        fit(config_of(**values), grid_of(levels=levels), images, images)


@pytest.mark.parametrize(
    ("model", "kind", "loads"),
    [
        ("independent", "exact", IndependentPixels),
        ("ppca", "lower bound", ProbabilisticPCA),
        ("gmm", "lower bound", GaussianMixture),
    ],
)
def test_the_stage_leaves_the_artifact_of_a_family(tmp_path, model, kind, loads):
    images = toy_artifact(tmp_path / "images")
    values = {"model": model, "num_components": 2, "num_samples": 12, "num_likelihood_images": 10}
    artifact = run_stage("stages.image.classic", tmp_path / "classic", values, {"images": images})
    family = json.loads((artifact.path / "family.json").read_text())
    assert family["family"] == (model if model == "independent" else f"{model}-2")
    assert family["training_flops"] == 0
    assert family["likelihood"]["kind"] == kind
    assert "EM" in family["settings"]["note"]
    samples = load_file(artifact.path / "samples.safetensors")
    assert list(samples) == ["1"]
    assert samples["1"].shape == (12, 1, 4, 4)
    bits = load_file(artifact.path / "likelihood.safetensors")
    assert {name: len(values) for name, values in bits.items()} == {"train": 10, "validation": 10, "test": 10}
    assert bits["test"].dtype == torch.float64
    loaded = loads.from_pretrained(artifact.path / "model")
    assert all(parameter.dtype == torch.float64 for parameter in loaded.parameters())
    assert loaded.num_free == family["parameters"]
