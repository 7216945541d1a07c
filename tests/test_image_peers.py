"""The benchmarks against peers count bits as our stages do, so that a difference is one of models."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.image_peer_side import (
    Density,
    DensityTraining,
    Images,
    density_bits,
    dequantise,
    discrete_bits,
    importance_bits,
    load_images,
)
from stages.common.images.grid import Grid
from stages.image.flow.model import bits_per_dim
from stages.image.vae.bounds import iwae_bound

SIZES = {"train": 0, "validation": 0, "test": 0}
GRID = Grid(
    name="toy",
    license="CC0-1.0",
    levels=4,
    channels=1,
    height=1,
    width=2,
    classes=(),
    sizes=SIZES,
    sha256=dict.fromkeys(SIZES, ""),
)
ALL_IMAGES = torch.tensor(list(itertools.product(range(4), repeat=2)), dtype=torch.uint8).view(-1, 1, 1, 2)


@pytest.mark.parametrize(("low", "width"), [(-1.0, 2.0), (0.0, 1.0), (-4.995, 9.99)])
def test_a_uniform_density_costs_log2_of_the_levels_on_every_scale(low, width):
    values = dequantise(
        ALL_IMAGES, 4, torch.rand(ALL_IMAGES.shape, generator=torch.Generator().manual_seed(1)), low=low, width=width
    )
    assert values.min() >= low
    assert values.max() < low + width
    log_densities = torch.full((3, len(ALL_IMAGES)), -2 * math.log(width))
    bits = density_bits(log_densities, num_dims=2, levels=4, width=width)
    assert torch.allclose(bits, torch.full_like(bits, 2.0))


def test_one_density_on_two_scales_has_equal_bits_and_those_that_our_flow_reports():
    log_densities = torch.randn(5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = bits_per_dim(torch.logsumexp(log_densities, 0) - math.log(5), GRID)
    assert torch.allclose(density_bits(log_densities, num_dims=2, levels=4, width=2.0), ours)
    stretched = log_densities - 2 * math.log(3.0)  # the same density after y -> 3 y
    assert torch.allclose(density_bits(stretched, num_dims=2, levels=4, width=6.0), ours)


def test_the_bound_of_many_draws_adds_up_to_no_more_than_one_over_all_images():
    deviation = 0.4

    def log_prob(values):
        return torch.distributions.Normal(0.0, deviation).log_prob(values).flatten(1).sum(1)

    torch.manual_seed(3)
    density = Density(network=nn.Identity(), log_prob=log_prob, low=-1.0, width=2.0)
    bits = density.bits(ALL_IMAGES, 4, 1000)
    normal = torch.distributions.Normal(0.0, deviation)
    inside = float(normal.cdf(torch.tensor(1.0)) - normal.cdf(torch.tensor(-1.0))) ** 2
    assert float(torch.exp2(-2 * bits).sum()) == pytest.approx(inside, rel=0.02)


def test_importance_weights_give_the_bits_of_our_vae():
    weights = torch.randn(6, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ours = -iwae_bound(weights, 8) / (2 * math.log(2))
    assert torch.allclose(importance_bits(weights, 2), ours)


def test_weights_of_an_exact_posterior_give_the_exact_probability():
    log_probs = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64).log()
    # If q is the posterior, every weight p(x | z) p(z) / q(z | x) is P(x).
    weights = log_probs.unsqueeze(1).expand(3, 16)
    assert torch.allclose(importance_bits(weights, 2), discrete_bits(log_probs, 2))


def test_the_arrays_of_all_sides_are_read_back_as_they_were_written(tmp_path):
    arrays = {name: np.full((n, 1, 1, 2), n, dtype=np.uint8) for n, name in enumerate(("train", "validation", "test"), 1)}
    np.savez(tmp_path / "images.npz", **arrays, levels=4)
    images = load_images(tmp_path / "images.npz")
    assert (len(images.train), len(images.validation), len(images.test), images.levels) == (1, 2, 3, 4)
    assert (images.shape, images.num_dims) == ((1, 1, 2), 2)


class Shifted(nn.Module):
    """A normal density whose mean is learnt; its loss holds one matrix product, so that there is something to count."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(1, 2, bias=False)

    def log_prob(self, values):
        mean = self.mean(torch.ones(len(values), 1))
        return torch.distributions.Normal(mean, 0.5).log_prob(values.flatten(1)).sum(1)


def test_the_loop_for_peers_counts_flops_finds_the_data_and_keeps_the_best_look():
    torch.manual_seed(5)
    images = Images(*(torch.full((64, 1, 1, 2), 3, dtype=torch.uint8) for _ in range(3)), levels=4)
    network = Shifted()
    training = DensityTraining(
        Density(network=network, log_prob=network.log_prob, low=-1.0, width=2.0), images, rate=0.05, batch_size=32
    )
    # Forward and the gradient of the weights: two products of 32 x 1 x 2, and 2 for each multiply-add.
    assert training.flops_per_step == 2 * (2 * 32 * 1 * 2)
    training.run(100)
    best_bits, weights = training.best
    assert weights["mean.weight"].flatten().tolist() == pytest.approx([0.75, 0.75], abs=0.1)
    assert best_bits < 1.5
