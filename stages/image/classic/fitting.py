"""How the classic densities are fitted to images.

Legend: N images, C channels, H height, W width, D = C·H·W values, K levels.

A dequantised value is the centre of its bin plus noise that is uniform in the bin. So the mean of dequantised images is that
of the centres, and their covariance that of the centres plus (2 / K)² / 12 on the diagonal: the noise is taken in exactly,
without drawing it, and no variance is ever zero.
"""

from __future__ import annotations

import warnings

import torch
from sklearn import mixture
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from pipeline.errors import DataError
from stages.common.images.grid import Grid, centres
from stages.image.classic.densities import GaussianMixture, IndependentPixels, ProbabilisticPCA

MOST_VALUES = 2**27
"""Numbers in all covariances of a mixture (1 GiB)."""


def fit_independent(images: Tensor, levels: int, smoothing: float) -> IndependentPixels:
    """Count the levels of each value of `images`, uint8 (N, C, H, W), and add `smoothing` to each count."""
    values = images.flatten(1).long()
    counts = torch.full((values.shape[1], levels), float(smoothing), dtype=torch.float64)
    counts.scatter_add_(1, values.T, torch.ones_like(values.T, dtype=torch.float64))
    model = IndependentPixels(num_dims=values.shape[1], levels=levels)
    model.probabilities.copy_(counts / counts.sum(dim=1, keepdim=True))
    return model


def fit_gaussian(images: Tensor, grid: Grid, ridge: float) -> GaussianMixture:
    """Return the Gaussian of maximum likelihood, with the variance of `floor` added."""
    mean, covariance = _moments(images, grid, ridge)
    model = GaussianMixture(num_dims=grid.num_dims, num_components=1)
    model.weights.fill_(1.0)
    model.means.copy_(mean[None])
    model.cholesky_factors.copy_(torch.linalg.cholesky(covariance)[None])
    return model


def fit_ppca(images: Tensor, grid: Grid, ridge: float, num_components: int) -> ProbabilisticPCA:
    """Return the PPCA of maximum likelihood (Tipping and Bishop, 1999, eq. 7 and 8).

    Raises:
        DataError: there are not more values than directions.
    """
    if num_components >= grid.num_dims:
        raise DataError(
            f"num_components is {num_components}: ppca needs fewer directions than the {grid.num_dims} values of an image; "
            "set a smaller number, or model: gaussian"
        )
    mean, covariance = _moments(images, grid, ridge)
    variances, directions = torch.linalg.eigh(covariance)  # in rising order
    noise = variances[:-num_components].mean()
    scale = (variances[-num_components:] - noise).clamp_min(0).sqrt()
    model = ProbabilisticPCA(num_dims=grid.num_dims, num_components=num_components)
    model.mean.copy_(mean)
    model.directions.copy_(directions[:, -num_components:] * scale)
    model.noise_variance.fill_(float(noise))
    return model


def fit_mixture(
    images: Tensor, grid: Grid, ridge: float, *, num_components: int, max_iterations: int, seed: int
) -> tuple[GaussianMixture, int]:
    """Return a mixture fitted by scikit-learn's EM from a k-means start, and the number of iterations.

    Raises:
        DataError: fewer images than Gaussians, or covariances too large to hold.
    """
    if num_components > len(images):
        raise DataError(f"num_components is {num_components}, but {len(images)} images are fitted; set at most that many")
    if num_components * grid.num_dims**2 > MOST_VALUES:
        raise DataError(
            f"num_components is {num_components}: the covariances of {grid.num_dims} values are too large to hold; set at most "
            f"{MOST_VALUES // grid.num_dims**2}, or model: ppca"
        )
    values = centres(images, grid.levels).flatten(1).double().numpy()
    em = mixture.GaussianMixture(
        num_components, reg_covar=floor(images, grid, ridge), max_iter=max_iterations, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the report shows the iterations
        em.fit(values)
    model = GaussianMixture(num_dims=grid.num_dims, num_components=num_components)
    model.weights.copy_(torch.from_numpy(em.weights_))
    model.means.copy_(torch.from_numpy(em.means_))
    model.cholesky_factors.copy_(torch.linalg.cholesky(torch.from_numpy(em.covariances_)))
    return model, int(em.n_iter_)


def floor(images: Tensor, grid: Grid, ridge: float) -> float:
    """Return the variance added to every value on [-1, 1): that of a bin's noise plus `ridge` times the mean variance."""
    variances = centres(images, grid.levels).double().var(dim=0, correction=0)
    return (2 / grid.levels) ** 2 / 12 + ridge * float(variances.mean())


def _moments(images: Tensor, grid: Grid, ridge: float) -> tuple[Tensor, Tensor]:
    values = centres(images, grid.levels).flatten(1).double()
    mean = values.mean(dim=0)
    covariance = (values - mean).T @ (values - mean) / len(values)
    return mean, covariance + floor(images, grid, ridge) * torch.eye(grid.num_dims, dtype=torch.float64)
