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
from stages.common.images.class_scores import mixture_likelihood
from stages.common.images.family import ConditionalFamily, History, Likelihood, Optimisation, Player
from stages.common.images.grid import Grid, dequantise, quantise
from stages.common.images.labels import labels_in_turn
from stages.common.images.noise import BatchNoise
from stages.common.images.parts import Parts
from stages.image.flow.config import Config
from stages.image.flow.flows import AutoregressiveFlow, CouplingFlow, ImageFlow
from stages.image.flow.pipeline import FlowPipeline

IMAGES_AT_ONCE = 256


class LikelihoodPlayer(Player):
    """Maximises the density of dequantised images: the loss is in bits per dimension of the grid."""

    def __init__(self, network: ImageFlow, grid: Grid, *, with_classes: bool) -> None:
        super().__init__()
        self.network = network
        self._grid, self._with_classes = grid, with_classes

    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:
        """See `Player`."""
        values = dequantise(images, self._grid.levels, noise.uniform(*self._grid.shape))
        given = labels if self._with_classes else None
        log_density = self.network.log_prob(values, noise, given)  # log p(y), eq. 5
        return {"loss": bits_per_dim(log_density, self._grid).mean()}


class Flow(ConditionalFamily):
    """A flow on one grid.

    Raises:
        DataError: sizes that do not fit the images.
    """

    name: ClassVar[str] = "flow"
    pooling = "probabilities"

    def __init__(self, grid: Grid, config: Config) -> None:
        self.grid, self._config = grid, config
        self.num_classes = len(grid.classes) if config.class_conditional else 0
        self.network = make_network(grid, config)

    def players(self) -> dict[str, Player]:
        return {"flow": LikelihoodPlayer(self.network, self.grid, with_classes=self.num_classes > 0)}

    def optimisation(self) -> dict[str, Optimisation]:
        return {"flow": Optimisation.of(self._config)}

    def averaged(self) -> dict[str, nn.Module]:
        return {"flow": self.network}

    @torch.no_grad()
    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw latents from the base and take them back: x = f⁻¹(z); with classes, by the map of each class in turn."""
        if self.num_classes:
            return self.sample_given(labels_in_turn(num_images, self.num_classes), generator)
        return Parts(IMAGES_AT_ONCE)(self.decode, self.base(num_images, generator))

    def sample_given(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return Parts(IMAGES_AT_ONCE)(self.decode, self.base(len(labels), generator), labels)

    def base(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return latents from the base, float32 (B, C, H, W) in [0, 1)."""
        return torch.rand(num_images, *self.grid.shape, generator=generator)

    @torch.no_grad()
    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the images of latents, uint8 (B, C, H, W)."""
        device = self.network.device
        values = self.network.inverse(latents.to(device), None if labels is None else labels.to(device))
        return quantise(values.float(), self.grid.levels).cpu()

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the latents of dequantised images, float32 (B, C, H, W) in [0, 1]."""
        noise = torch.rand(images.shape, generator=generator)
        values = dequantise(images, self.grid.levels, noise)
        return Parts(IMAGES_AT_ONCE)(lambda part: self.network(part.to(self.network.device))[0].cpu(), values)

    @torch.no_grad()
    def log_probs_given(self, images: Tensor, label: int, generator: torch.Generator) -> Tensor:
        densities = self._log_densities(images, self._config.num_class_draws, generator, label)
        return densities + self.grid.bin_log2_volume * math.log(2)

    @property
    def class_detail(self) -> str:
        return f"exact density, {self._config.num_class_draws} draws of dequantisation noise, the same for every class"

    def likelihood(self, images: Tensor, generator: torch.Generator) -> Likelihood:
        if self.num_classes:
            return mixture_likelihood(self, images, generator)
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
        return torch.logsumexp(self._log_densities(images, num_draws, generator), dim=0) - math.log(num_draws)

    def _log_densities(self, images: Tensor, num_draws: int, generator: torch.Generator, label: int | None = None) -> Tensor:
        """Return log p(y_i), float64 (k, B), in nats, of images that all have class `label`, if the flow knows classes."""
        device, by_parts = self.network.device, Parts()

        def log_prob(values: Tensor) -> Tensor:
            labels = None if label is None else torch.full((len(values),), label, device=device)
            return self.network.log_prob(values.to(device), labels=labels).double().cpu()

        draws = []
        for _ in range(num_draws):
            values = dequantise(images, self.grid.levels, torch.rand(images.shape, generator=generator))
            draws.append(by_parts(log_prob, values))
        return torch.stack(draws)

    @property
    def num_function_evaluations(self) -> int:
        return self.network.num_function_evaluations

    def saved(self) -> dict[str, nn.Module]:
        return {"flow": self.network}

    def save(self, directory: Path) -> None:
        FlowPipeline(flow=self.network).save_pretrained(directory)

    def usage(self) -> str:
        size = f"class_labels=[i % {self.num_classes} for i in range(16)]" if self.num_classes else "batch_size=16"
        return f"""\
import torch
from stages.image.flow.pipeline import FlowPipeline

pipeline = FlowPipeline.from_pretrained(FOLDER)
generator = torch.Generator().manual_seed(0)
images = pipeline({size}, generator=generator, output_type="pt").images  # float (16, C, H, W) in [0, 1]
"""

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
        num_classes=len(grid.classes) if config.class_conditional else 0,
    )


def bits_per_dim(log_prob: Tensor, grid: Grid) -> Tensor:
    """Return bits/dim of the grid from log densities on [-1, 1) in nats: -(log2 p + D·log2(2/K)) / D; both (B,)."""
    return -(log_prob / math.log(2) + grid.bin_log2_volume) / grid.num_dims


def load_model(directory: Path, grid: Grid, config: Config) -> Flow:
    """Return the averaged weights of a flow that `save` wrote under `directory`."""
    return Flow(grid, config).restored(directory)
