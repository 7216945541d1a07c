"""Lower bounds on ln P(x) of a model with latents, from weights w = p(x | z)·p(z) / q(z | x) of drawn latents z ~ q(z | x).

Legend: B images, k latents drawn for each image; a latent has the shape (Z, h, w).

The mean of ln w is the ELBO (Kingma and Welling, arXiv 1312.6114, eq. 2). The logarithm of the mean of k weights is the
IWAE bound (Burda et al., arXiv 1509.00519, eq. 8); it rises with k to ln P(x).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.errors import DataError
from stages.common.images.grid import centres
from stages.common.images.parts import Parts
from stages.image.vae.networks import Autoencoder, prior_of
from stages.image.vae.pixels import PixelDistribution
from stages.image.vae.prior import Prior, StandardPrior, log_normal

ROWS_AT_ONCE = 1024
"""Latents that are decoded together, so that memory does not grow with k or the number of images."""


def kl_to_normal(mean: Tensor, logvar: Tensor, to_mean: Tensor, to_logvar: Tensor) -> Tensor:
    """Return KL(N(mean, exp(logvar)) || N(to_mean, exp(to_logvar))) of each number, in nats (eq. 10 has N(0, 1) here)."""
    ratio = torch.exp(logvar - to_logvar)
    return 0.5 * ((mean - to_mean).square() * torch.exp(-to_logvar) + ratio - 1 + to_logvar - logvar)


def kl_to_prior(prior: Prior, mean: Tensor, logvar: Tensor, latents: Tensor) -> Tensor:
    """Return KL(q(z | x) || p(z)) of each image, float (B,), in nats.

    To N(0, 1) it is exact. To a mixture it has no closed form: then it is ln q(z | x) - ln p(z) of the drawn `latents`, which is
    right on average over draws.
    """
    if isinstance(prior, StandardPrior):
        zero = torch.zeros_like(mean)
        return kl_to_normal(mean, logvar, zero, zero).flatten(1).sum(1)
    return log_normal(latents, mean, logvar).flatten(1).sum(1) - prior.log_prob(latents)


@torch.no_grad()
def log_weights(
    network: Autoencoder, pixels: PixelDistribution, images: Tensor, k: int, generator: torch.Generator, label: int | None = None
) -> Tensor:
    """Return ln w of k latents for each image, float64 (B, k), in nats, on the CPU.

    Args:
        network: encoder and decoder.
        pixels: p(x | z).
        images: uint8 (B, C, H, W).
        k: latents for each image.
        generator: of the latents, on the CPU.
        label: class of all images; None for a network without classes.
    """
    rows, decode = max(1, ROWS_AT_ONCE // k), Parts()
    return torch.cat([_log_weights(network, pixels, part, k, generator, label, decode) for part in images.split(rows)])


def iwae_bound(weights: Tensor, k: int) -> Tensor:
    """Return the IWAE bound of k latents for each image, float64 (B,), in nats, from `log_weights` (B, n).

    The n weights are cut into n / k groups and the groups' bounds averaged: for k = 1 this is the ELBO. On the same weights
    a bound can only rise when groups are joined (Jensen's inequality).

    Raises:
        DataError: n is not a multiple of k.
    """
    if weights.shape[1] % k:
        raise DataError(f"k is {k}: {weights.shape[1]} weights cannot be cut into groups of k; draw a multiple of k")
    groups = weights.double().unflatten(1, (-1, k))
    return (torch.logsumexp(groups, dim=2) - math.log(k)).mean(dim=1)


def _log_weights(
    network: Autoencoder,
    pixels: PixelDistribution,
    images: Tensor,
    k: int,
    generator: torch.Generator,
    label: int | None,
    decode: Parts,
) -> Tensor:
    def encoded(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        posterior = network.encode(centres(images, pixels.levels), **_given(label, images)).latent_dist
        return posterior.mean, posterior.std, posterior.logvar

    def log_likelihood(latents: Tensor, repeated: Tensor) -> Tensor:
        outputs = network.decode(latents, **_given(label, repeated)).sample.float()
        return _total(pixels.log_prob(outputs, repeated))

    images = images.to(network.device)
    mean, std, logvar = (values.unsqueeze(1) for values in Parts().several(encoded, images))
    noise = torch.randn(len(images), k, *mean.shape[2:], generator=generator).to(images.device)
    parts = []
    for chosen in noise.split(ROWS_AT_ONCE, dim=1):  # one image may have more latents than fit
        latents = mean + std * chosen
        repeated = images.repeat_interleave(chosen.shape[1], dim=0)
        likelihood = decode(log_likelihood, latents.flatten(0, 1), repeated).view(len(images), -1)
        prior = prior_of(network).log_prob(latents.double().flatten(0, 1)).view(len(images), -1)
        encoder = log_normal(latents, mean, logvar).double().flatten(2).sum(2)
        parts.append(likelihood + prior - encoder)
    return torch.cat(parts, dim=1).cpu()


def _given(label: int | None, images: Tensor) -> dict[str, Tensor]:
    """Return what a network is told beside the images, if anything."""
    return {} if label is None else {"labels": torch.full((len(images),), label, device=images.device)}


def _total(log_probs: Tensor) -> Tensor:
    """Return the sum over the values of each image, float64."""
    return log_probs.double().flatten(1).sum(1)
