"""One classic density on one grid: fitted, then asked for samples and bits per dimension like any other family.

Legend: B images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import DataError
from stages.common.images.family import Likelihood
from stages.common.images.grid import Grid, quantise
from stages.common.images.noise import seeded_generator
from stages.image.classic.config import Config
from stages.image.classic.densities import GaussianMixture, IndependentPixels, ProbabilisticPCA, dequantised_bits
from stages.image.classic.fitting import fit_gaussian, fit_independent, fit_mixture, fit_ppca

_TRIALS = 2**40 + 16
"""Stream of random numbers for the noise of trials."""
_DENSITIES = {
    "independent": IndependentPixels,
    "gaussian": GaussianMixture,
    "ppca": ProbabilisticPCA,
    "gmm": GaussianMixture,
}


@dataclass(frozen=True)
class Trial:
    """One value of the ridge.

    Attributes:
        ridge: variance added, as a share of the mean variance.
        bits: mean bits per dimension of the validation images.
        iterations: of EM; 0 in closed form.
    """

    ridge: float
    bits: float
    iterations: int


@dataclass(frozen=True)
class ClassicModel:
    """A fitted density.

    Attributes:
        grid: of the images.
        density: what was fitted.
        num_images: that were fitted.
        num_draws: dequantisation noise for each image where the likelihood is a bound.
        trials: ridges tried on the validation split, in order; empty for independent pixels.
    """

    grid: Grid
    density: IndependentPixels | GaussianMixture | ProbabilisticPCA
    num_images: int
    num_draws: int
    trials: tuple[Trial, ...]

    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return images on the grid, uint8 (num_images, C, H, W)."""
        drawn = self.density.draw(num_images, generator)
        if not isinstance(self.density, IndependentPixels):
            drawn = quantise(drawn, self.grid.levels)
        return drawn.view(num_images, *self.grid.shape)

    def likelihood(self, images: Tensor, generator: torch.Generator) -> Likelihood:
        """Return bits per dimension of `images`, uint8 (B, C, H, W)."""
        if isinstance(self.density, IndependentPixels):
            bits = -self.density.log_prob(images.flatten(1)) / (self.grid.num_dims * math.log(2))
            return Likelihood(bits=bits, kind="exact", detail="a table of probabilities")
        bits = dequantised_bits(self.density, images, self.grid, self.num_draws, generator)
        return Likelihood(bits=bits, kind="lower bound", detail=f"dequantisation, k = {self.num_draws}")

    @property
    def best(self) -> Trial | None:
        """The trial that was kept."""
        return min(self.trials, key=lambda trial: trial.bits, default=None)


def family_name(config: Config) -> str:
    """Return the name that the comparison shows: the model, with the number of components where there are any."""
    return f"{config.model}-{config.num_components}" if config.model in ("ppca", "gmm") else config.model


def fit(
    config: Config, grid: Grid, train: Tensor, validation: Tensor, *, tell: Callable[[int], None] = lambda _: None
) -> ClassicModel:
    """Fit `config.model` to `train` with each ridge, uint8 (N, C, H, W), and keep what gives `validation` the fewest bits.

    `tell` is called with the number of ridges that were tried.

    Raises:
        DataError: fewer than two levels, a split without images, or a model that the images do not allow.
    """
    if grid.levels < 2:
        raise DataError(f"levels is {grid.levels}: images of one level are all alike; take images with at least 2 levels")
    if not len(train) or not len(validation):
        raise DataError(f"train has {len(train)} images and validation {len(validation)}; both need at least one")
    train = train[: config.max_train_images]
    if config.model == "independent":
        return ClassicModel(grid, fit_independent(train, grid.levels, config.smoothing), len(train), config.num_draws, ())
    densities, trials = [], []
    for ridge in config.ridges:
        tell(len(trials))
        density, iterations = _fit_one(config, grid, train, ridge)
        noise = seeded_generator(config.seed, _TRIALS)  # the same noise for every trial
        bits = float(dequantised_bits(density, validation, grid, config.num_draws, noise).mean())
        densities.append(density)
        trials.append(Trial(ridge, bits, iterations))
    tell(len(trials))
    best = min(range(len(trials)), key=lambda index: trials[index].bits)
    return ClassicModel(grid, densities[best], len(train), config.num_draws, tuple(trials))


def _fit_one(config: Config, grid: Grid, train: Tensor, ridge: float) -> tuple[GaussianMixture | ProbabilisticPCA, int]:
    if config.model == "gaussian":
        return fit_gaussian(train, grid, ridge), 0
    if config.model == "ppca":
        return fit_ppca(train, grid, ridge, config.num_components), 0
    return fit_mixture(
        train, grid, ridge, num_components=config.num_components, max_iterations=config.max_iterations, seed=config.seed
    )


def load_model(directory: Path, grid: Grid, config: Config) -> ClassicModel:
    """Return the density that was saved under `directory`; how it was fitted is not kept there."""
    density = _DENSITIES[config.model].from_pretrained(directory)
    return ClassicModel(grid, density, num_images=0, num_draws=config.num_draws, trials=())
