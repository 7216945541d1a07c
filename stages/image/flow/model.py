"""Normalizing flow: an invertible map f from images to latents of a known density, trained by maximum likelihood.

Legend: B images, C channels, H height, W width, D = C·H·W values, K levels, k draws of noise.

The density of a dequantised image y is exact,
    log p(y) = log base(f(y)) + log |det df/dy|                       (Rezende and Mohamed, arXiv 1505.05770, eq. 5),
and the probability of an image x on the grid is its integral over the box of x, bounded from below by an average over draws:
    log2 P(x) >= E[log2 (1/k) Σ p(y_i)] + D·log2(2/K),  y_i = 2 (x + u_i) / K - 1  (Hoogeboom et al., arXiv 2001.11235)
Training uses k = 1, with noise drawn anew at each look: noise drawn once would be learnt by heart.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.contract import Context
from stages.common.images.family import Family, History, Likelihood, Optimisation, Player
from stages.common.images.grid import Grid, dequantise, quantise
from stages.common.images.noise import BatchNoise
from stages.image.flow.config import Config
from stages.image.flow.flows import AutoregressiveFlow, CouplingFlow, ImageFlow
from stages.image.flow.pipeline import FlowPipeline

IMAGES_AT_ONCE = 256


class LikelihoodPlayer(Player):
    """Maximises the density of dequantised images: the loss is in bits per dimension of the grid."""

    def __init__(self, network: ImageFlow, grid: Grid) -> None:
        super().__init__()
        self.network = network
        self._grid = grid

    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:  # noqa: ARG002
        """See `Player`."""
        values = dequantise(images, self._grid.levels, noise.uniform(*self._grid.shape))
        return {"loss": bits_per_dim(self.network.log_prob(values, noise), self._grid).mean()}


class Flow(Family):
    """A flow on one grid.

    Raises:
        DataError: sizes that do not fit the images.
    """

    name: ClassVar[str] = "flow"

    def __init__(self, grid: Grid, config: Config) -> None:
        self.grid, self._config = grid, config
        self.network = make_network(grid, config)

    def players(self) -> dict[str, Player]:
        return {"flow": LikelihoodPlayer(self.network, self.grid)}

    def optimisation(self) -> dict[str, Optimisation]:
        config = self._config
        rule = Optimisation(
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            max_gradient_norm=config.max_gradient_norm,
        )
        return {"flow": rule}

    def averaged(self) -> dict[str, nn.Module]:
        return {"flow": self.network}

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw latents from the base and take them back: x = f⁻¹(z)."""
        return torch.cat([self.decode(part) for part in self.base(num_images, generator).split(IMAGES_AT_ONCE)])

    def base(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return latents from the base, float32 (B, C, H, W) in [0, 1)."""
        return torch.rand(num_images, *self.grid.shape, generator=generator)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents, uint8 (B, C, H, W)."""
        return quantise(self.network.inverse(latents.to(self.network.device)).float(), self.grid.levels).cpu()

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the latents of dequantised images, float32 (B, C, H, W) in [0, 1]."""
        noise = torch.rand(images.shape, generator=generator)
        values = dequantise(images, self.grid.levels, noise)
        return torch.cat([self.network(part.to(self.network.device))[0].cpu() for part in values.split(IMAGES_AT_ONCE)])

    def likelihood(self, images: Tensor, generator: torch.Generator) -> Likelihood:
        num_draws = self._config.num_dequantisation_draws
        bits = self.bits_per_dim(images, num_draws, generator)
        return Likelihood(bits=bits, kind="lower bound", detail=f"exact density, {num_draws} draws of dequantisation noise")

    @torch.no_grad()
    def bits_per_dim(self, images: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        """Return bits/dim of images on the grid by the bound with k = `num_draws`, float64 (B,)."""
        parts = [self._log_mean_density(part, num_draws, generator) for part in images.split(IMAGES_AT_ONCE)]
        return bits_per_dim(torch.cat(parts), self.grid)

    def _log_mean_density(self, images: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        """Return log (1/k) Σ p(y_i), float64 (B,), in nats."""
        draws = []
        for _ in range(num_draws):
            values = dequantise(images, self.grid.levels, torch.rand(images.shape, generator=generator))
            draws.append(self.network.log_prob(values.to(self.network.device)).double().cpu())
        return torch.logsumexp(torch.stack(draws), dim=0) - math.log(num_draws)

    @property
    def num_function_evaluations(self) -> int:
        return self.network.num_function_evaluations

    def save(self, directory: Path) -> None:
        FlowPipeline(flow=self.network).save_pretrained(directory)

    def report(self, context: Context, images: Tensor, generator: torch.Generator, history: History) -> None:
        from stages.image.flow.report import write

        write(context, self, images, generator, history)


def make_network(grid: Grid, config: Config) -> ImageFlow:
    """Return the flow that `config` describes; its weights are random, its density uniform.

    Raises:
        DataError: sizes that do not fit the images.
    """
    build = {"coupling": CouplingFlow, "autoregressive": AutoregressiveFlow}[config.architecture]
    return build(
        channels=grid.channels,
        height=grid.height,
        width=grid.width,
        levels=grid.levels,
        patch_size=config.patch_size,
        num_transforms=config.num_transforms,
        num_bins=config.num_bins,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        dropout=config.dropout,
    )


def bits_per_dim(log_prob: Tensor, grid: Grid) -> Tensor:
    """Return bits/dim of the grid from log densities on [-1, 1) in nats: -(log2 p + D·log2(2/K)) / D; both (B,)."""
    return -(log_prob / math.log(2) + grid.bin_log2_volume) / grid.num_dims
