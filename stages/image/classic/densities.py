"""Four classic densities as models that are saved like any other: safetensors and a config.

Legend: B images, D values of an image, K levels, M Gaussians of a mixture, Q latent directions.

`IndependentPixels` is a distribution over integers. The others are densities over dequantised images in [-1, 1); the bound
on the probability of the integers is the same for all of them (`dequantised_bits`). All tensors are float64: a covariance of
many pixels is too close to singular for less.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.distributions import Categorical, LowRankMultivariateNormal, MixtureSameFamily, MultivariateNormal

from stages.common.images.grid import Grid, dequantise

VALUES_AT_ONCE = 2**20
"""Numbers held by one chunk of `dequantised_bits` (8 MiB, times the Gaussians of a mixture)."""


class Density(Protocol):
    """A density over dequantised images."""

    def log_prob(self, values: Tensor) -> Tensor:
        """Return the log density, float64 (B,), in nats, at `values`, float64 (B, D)."""

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return float64 (num_images, D)."""


class IndependentPixels(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """P(x) = Π_d p_d(x_d), a table of probabilities for each value.

    Args:
        num_dims: D.
        levels: K.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, *, num_dims: int, levels: int) -> None:
        super().__init__()
        self.probabilities = _constant(num_dims, levels)

    def log_prob(self, images: Tensor) -> Tensor:
        """Return ln P(x), float64 (B,), of `images`, integers (B, D)."""
        return self.probabilities.log().gather(1, images.long().T).sum(dim=0)

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return integers, uint8 (num_images, D)."""
        drawn = torch.multinomial(self.probabilities, num_images, replacement=True, generator=generator)
        return drawn.T.to(torch.uint8).contiguous()

    @property
    def num_free(self) -> int:
        """Numbers that are fitted."""
        return self.config.num_dims * (self.config.levels - 1)


class GaussianMixture(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """p(y) = Σ_m w_m N(y; μ_m, L_m L_mᵀ); a single Gaussian for M = 1.

    Args:
        num_dims: D.
        num_components: M.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, *, num_dims: int, num_components: int) -> None:
        super().__init__()
        self.weights = _constant(num_components)
        self.means = _constant(num_components, num_dims)
        self.cholesky_factors = _constant(num_components, num_dims, num_dims)

    def log_prob(self, values: Tensor) -> Tensor:
        """See `Density`."""
        parts = MultivariateNormal(self.means, scale_tril=self.cholesky_factors, validate_args=False)
        return MixtureSameFamily(Categorical(self.weights), parts, validate_args=False).log_prob(values)

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """See `Density`."""
        chosen = torch.multinomial(self.weights, num_images, replacement=True, generator=generator)
        noise = torch.randn(num_images, self.config.num_dims, generator=generator, dtype=torch.float64)
        values = torch.empty_like(noise)
        for component in chosen.unique().tolist():
            rows = chosen == component
            values[rows] = self.means[component] + noise[rows] @ self.cholesky_factors[component].T
        return values

    @property
    def num_free(self) -> int:
        """Numbers that are fitted: weights that sum to one, means, symmetric covariances."""
        dims, parts = self.config.num_dims, self.config.num_components
        return parts - 1 + parts * (dims + dims * (dims + 1) // 2)


class ProbabilisticPCA(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """y = W z + μ + σ ε with z, ε ~ N(0, 1): a Gaussian of covariance W Wᵀ + σ² I (Tipping and Bishop, 1999, eq. 2 to 4).

    Args:
        num_dims: D.
        num_components: Q.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, *, num_dims: int, num_components: int) -> None:
        super().__init__()
        self.mean = _constant(num_dims)
        self.directions = _constant(num_dims, num_components)
        self.noise_variance = _constant(1)

    def log_prob(self, values: Tensor) -> Tensor:
        """See `Density`; only a Q x Q matrix is inverted."""
        noise = self.noise_variance.expand(self.config.num_dims)
        return LowRankMultivariateNormal(self.mean, self.directions, noise, validate_args=False).log_prob(values)

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """See `Density`."""
        latents = torch.randn(num_images, self.config.num_components, generator=generator, dtype=torch.float64)
        noise = torch.randn(num_images, self.config.num_dims, generator=generator, dtype=torch.float64)
        return self.mean + latents @ self.directions.T + self.noise_variance.sqrt() * noise

    @property
    def num_free(self) -> int:
        """Numbers that are fitted; W is known up to a rotation of the latents."""
        dims, directions = self.config.num_dims, self.config.num_components
        return dims + 1 + dims * directions - directions * (directions - 1) // 2


def dequantised_bits(density: Density, images: Tensor, grid: Grid, num_draws: int, generator: torch.Generator) -> Tensor:
    """Return bits per dimension, float64 (B,), of `images`, uint8 (B, C, H, W), through a lower bound on log2 P(x).

    log2 P(x) >= E[log2 mean of p(y_1), ..., p(y_k)] + D·log2(2 / K): the mean over k draws of noise makes the bound of
    `grid.py` tighter (the argument of Burda et al., arXiv 1509.00519, theorem 1).
    """
    rows = max(1, VALUES_AT_ONCE // (num_draws * grid.num_dims))
    bounds = []
    for part in images.split(rows):
        noise = torch.rand(num_draws, *part.shape, generator=generator, dtype=torch.float64)
        values = dequantise(part, grid.levels, noise).view(num_draws * len(part), -1)
        log_probs = density.log_prob(values).view(num_draws, len(part))
        bounds.append(torch.logsumexp(log_probs, dim=0) - math.log(num_draws))
    return -(torch.cat(bounds) / math.log(2) + grid.bin_log2_volume) / grid.num_dims


def _constant(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape, dtype=torch.float64), requires_grad=False)
