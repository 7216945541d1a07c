"""What the latents of a VAE hold: which of them are used, and how images change on the way from one latent to another.

Legend: B images, C channels, H height, W width; a latent has the shape (Z, h, w) and U = Z·h·w units; T steps of a path, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.common.images.latent_plane import slerp
from stages.common.statistics import ratio_interval
from stages.image.vae.bounds import kl_to_normal
from stages.image.vae.model import VAE

ACTIVE_VARIANCE = 0.01
"""A unit is active when its posterior mean varies over images by more than this (Burda et al., 1509.00519, section 5.2)."""
PATH_STEPS = 32


@dataclass(frozen=True)
class Units:
    """Use of each latent unit over some images.

    Attributes:
        kl: mean KL to a normal distribution of the prior's mean and variance, nats, float64 (U,).
        variance: of the posterior mean over the images, float64 (U,).
        order: units from the largest to the smallest KL.
    """

    kl: Tensor
    variance: Tensor
    order: list[int]

    @property
    def num_active(self) -> int:
        """Units whose posterior mean depends on the image; the others carry noise only."""
        return int((self.variance > ACTIVE_VARIANCE).sum())


@dataclass(frozen=True)
class Smoothness:
    """How the decoder's mean moves along arcs between the latents of test images.

    Attributes:
        path_ratio: length of the path in pixel space over the distance of its ends; 1 is the straight cross-fade.
        path_interval: 95 % bootstrap interval over pairs.
        largest_step: largest of the T steps over their mean; 1 is even, T is one jump.
        step_interval: 95 % bootstrap interval over pairs.
        num_pairs: pairs of test images.
    """

    path_ratio: float
    path_interval: tuple[float, float]
    largest_step: float
    step_interval: tuple[float, float]
    num_pairs: int


def unit_use(means: Tensor, logvars: Tensor, prior: tuple[Tensor, Tensor]) -> Units:
    """Return how much each unit is used, from the posteriors of images, each (B, Z, h, w), and the prior's moments, (Z, h, w)."""
    means, logvars = means.flatten(1).double(), logvars.flatten(1).double()
    kl = kl_to_normal(means, logvars, *(moment.flatten().double() for moment in prior)).mean(dim=0)
    return Units(kl, means.var(dim=0, correction=0), torch.argsort(kl, descending=True, stable=True).tolist())


def unit_name(unit: int, latent_shape: Sequence[int]) -> str:
    """Return `unit 5`, or where latents have a place, with its row and column on their map: `unit 0 at (2, 1)`."""
    _, height, width = latent_shape
    if height * width == 1:
        return f"unit {unit}"
    number, place = divmod(unit, height * width)
    return f"unit {number} at {divmod(place, width)}"


def leading_directions(means: Tensor, most: int) -> Tensor:
    """Return the principal directions of posterior means (B, Z, h, w), each one standard deviation long, (<= `most`, Z, h, w)."""
    flat = means.flatten(1)
    _, sizes, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    deviations = sizes / max(1, len(means) - 1) ** 0.5
    return (deviations.unsqueeze(1) * directions)[:most].unflatten(1, means.shape[1:])


def paths(vae: VAE, means: Tensor) -> Tensor:
    """Return the decoder's means along arcs between the posterior means (B, Z, h, w) of disjoint pairs of images, B >= 2.

    Returns:
        in levels, float32 (P, T+1, C, H, W) with P = B // 2.
    """
    num_pairs = len(means) // 2
    arcs = slerp(means[:num_pairs], means[num_pairs : 2 * num_pairs], torch.linspace(0, 1, PATH_STEPS + 1))
    return vae.mean(arcs.flatten(0, 1)).view(num_pairs, PATH_STEPS + 1, *vae.grid.shape)


def smoothness(images: Tensor, *, seed: int) -> Smoothness:
    """Measure paths, float (P, T+1, C, H, W)."""
    frames = images.flatten(2).double()
    steps = (frames[:, 1:] - frames[:, :-1]).norm(dim=2).numpy()
    lengths, distances = steps.sum(axis=1), (frames[:, -1] - frames[:, 0]).norm(dim=1).numpy()
    largest, average = steps.max(axis=1), steps.mean(axis=1)
    return Smoothness(
        _ratio(lengths, distances),
        ratio_interval(lengths, distances, seed=seed),
        _ratio(largest, average),
        ratio_interval(largest, average, seed=seed),
        len(frames),
    )


def _ratio(top: np.ndarray, bottom: np.ndarray) -> float:
    return float(top.sum() / bottom.sum())
