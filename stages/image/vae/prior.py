"""The prior p(z) that latents are drawn from: N(0, 1), or a mixture of normal distributions that is learnt with the decoder.

Legend: B images, M components; a latent has the shape (Z, h, w) with h = w = 1 for the mixture.

The part of -ELBO that the prior pays is KL(mean over images of q(z | x) || p(z)) plus what the latents say about the image
(Hoffman and Johnson, "ELBO surgery", 2016). N(0, 1) leaves holes: regions that it draws from and no image was ever put in. A
learnt mixture (Dilokthanakul et al., arXiv 1611.02648; Tomczak and Welling, arXiv 1705.07120, section 3) fills them in.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def log_normal(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return ln N(x; mean, exp(logvar)) of each number, in nats, of the arguments' common shape."""
    return -0.5 * ((x - mean).square() * torch.exp(-logvar) + logvar + math.log(2 * math.pi))


class MixturePrior(nn.Module):
    """p(z) = sum over m of w_m N(z; mean_m, exp(logvar_m)), all three learnt; latents (B, Z, 1, 1)."""

    def __init__(self, latent_channels: int, num_components: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(num_components, latent_channels))
        self.logvar = nn.Parameter(torch.full((num_components, latent_channels), -0.5))
        self.logits = nn.Parameter(torch.zeros(num_components))

    @torch.no_grad()
    def moments(self, latent_shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of each latent number over the whole mixture, `latent_shape` each, on the CPU."""
        weights = self.logits.softmax(0).unsqueeze(1)
        mean = (weights * self.mean).sum(0)
        variance = (weights * (self.logvar.exp() + (self.mean - mean).square())).sum(0)
        return mean.cpu().view(latent_shape), variance.log().cpu().view(latent_shape)

    def log_prob(self, latents: Tensor) -> Tensor:
        """Return ln p(z), (B,), in the precision of `latents`."""
        mean, logvar = self.mean.to(latents.dtype), self.logvar.to(latents.dtype)
        components = log_normal(latents.flatten(1).unsqueeze(1), mean, logvar).sum(2)
        return torch.logsumexp(components + self.logits.to(latents.dtype).log_softmax(0), dim=1)

    @torch.no_grad()
    def draw(self, normal: Tensor, generator: torch.Generator) -> Tensor:
        """Return latents (B, Z, 1, 1) made of standard normal values of that shape; `generator` chooses the components."""
        chosen = torch.multinomial(self.logits.softmax(0).cpu(), len(normal), replacement=True, generator=generator)
        scale = torch.exp(0.5 * self.logvar.cpu()[chosen])
        return (self.mean.cpu()[chosen] + scale * normal.flatten(1)).unflatten(1, normal.shape[1:])


class StandardPrior(nn.Module):
    """p(z) = N(0, 1); nothing to learn."""

    def moments(self, latent_shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of each latent number, zeros of `latent_shape`."""
        return torch.zeros(latent_shape), torch.zeros(latent_shape)

    def log_prob(self, latents: Tensor) -> Tensor:
        """Return ln p(z), (B,), in the precision of `latents`."""
        return log_normal(latents, torch.zeros_like(latents), torch.zeros_like(latents)).flatten(1).sum(1)

    def draw(self, normal: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return `normal`."""
        return normal


Prior = MixturePrior | StandardPrior


def make_prior(latent_channels: int, num_components: int) -> Prior:
    """Return N(0, 1) for one component, else a mixture."""
    return StandardPrior() if num_components == 1 else MixturePrior(latent_channels, num_components)
