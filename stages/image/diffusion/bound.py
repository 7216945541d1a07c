"""The variational bound of a diffusion on the log probability of integers (Ho et al., arXiv 2006.11239, eq. 5).

Legend: B images, C channels, H height, W width, K levels, T timesteps, a = alpha bar_t, b = alpha bar_(t-1).

The image x (centres of bins in [-1, 1]) turns into noise, q(x_t | x) = N(√a·x, 1 - a); the model goes back,
p(x_(t-1) | x_t) = N(mean with x^ for x, s²), where x^(x_t, t) is the denoised image. With s the first timestep used,
    -ln P(x) <= KL(q(x_(T-1) | x) || N(0, 1)) + sum over t > s of KL(q(x_(t-1) | x_t, x) || p(x_(t-1) | x_t)) - ln P(x | x_s).

Variances. Not fixed ones: the bound is lowest for s² = posterior variance + c²·E(x - x^)² with c the weight of x in the
posterior mean (Analytic-DPM, Bao et al., arXiv 2201.06503, eq. 7). The mean squared error E(x - x^)², one number for each
value and timestep, is learnt while training (`networks`); it never sees the images that are judged.

Last step. P(x | x_s) is a normal density around x^ with variance E(x - x^)², cut into the bins of the grid, the outermost
bins open (2006.11239, eq. 13), mixed with a trace of a uniform one. Once the noise is smaller than half a bin nothing is
left to tell, and each further step only costs; so s is the first timestep whose noise reaches half a bin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.common.images.grid import centres

Denoise = Callable[[Tensor, int], Tensor]
"""(x_t (B, C, H, W), t) -> x^ of the same shape."""
SquaredError = Callable[[int], Tensor]
"""t -> E(x - x^)² for each value, broadcasts to (B, C, H, W), above 0."""

UNIFORM_SHARE = 1e-4
"""Of P(x | x_s) that is spread evenly over the K levels: a value far off costs 13 bits and log2 K more, not infinitely many."""


@dataclass(frozen=True)
class Bound:
    """The parts of the bound, nats, float64.

    Attributes:
        prior: of the last timestep, (B,).
        steps: timestep t -> what the step from x_t to x_(t-1) costs, (B,).
        decoder: of the integers given x_s, (B,).
    """

    prior: Tensor
    steps: dict[int, Tensor]
    decoder: Tensor

    @property
    def nats(self) -> Tensor:
        """The bound on -ln P(x), (B,)."""
        return self.prior + sum(self.steps.values()) + self.decoder


def first_timestep(alphas_cumprod: Tensor, levels: int) -> int:
    """Return s: the first timestep whose noise, in units of the image, has a standard deviation of half a bin, 1 / K."""
    noise = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
    return int((noise < 1 / levels).sum())


def variational_bound(
    images: Tensor,
    *,
    levels: int,
    alphas_cumprod: Tensor,
    denoise: Denoise,
    squared_error: SquaredError,
    generator: torch.Generator,
) -> Bound:
    """Return the bound on -ln P(x); an unbiased estimate, with one draw of noise at each timestep.

    Args:
        images: integers (B, C, H, W) in 0 ... K-1, on the device of the denoiser.
        levels: K.
        alphas_cumprod: alpha bar, float (T,), falling.
        denoise: the model.
        squared_error: its mean squared error.
        generator: of the noise, on the CPU.
    """
    x = centres(images, levels)
    first = first_timestep(alphas_cumprod, levels)

    def noisy(t: int) -> Tensor:
        noise = torch.randn(x.shape, generator=generator).to(x)
        return alphas_cumprod[t].sqrt() * x + (1 - alphas_cumprod[t]).sqrt() * noise

    steps = {}
    for t in range(len(alphas_cumprod) - 1, first, -1):
        error = (x - denoise(noisy(t), t)).square()
        steps[t] = _step_kl(error, squared_error(t), a=alphas_cumprod[t], b=alphas_cumprod[t - 1])
    decoder = decoder_nats(images, denoise(noisy(first), first), squared_error(first), levels)
    return Bound(prior=_prior_kl(x, alphas_cumprod[-1]), steps=steps, decoder=decoder)


def _prior_kl(x: Tensor, a: Tensor) -> Tensor:
    """KL(N(√a·x, 1 - a) || N(0, 1)), float64 (B,)."""
    return _summed(0.5 * (a * x.square() - a - torch.log1p(-a)))


def _step_kl(error: Tensor, mean_error: Tensor, *, a: Tensor, b: Tensor) -> Tensor:
    """KL of two normal densities whose means differ by c·(x - x^); `error` is (x - x^)², float64 (B,)."""
    beta = 1 - a / b
    posterior_variance = beta * (1 - b) / (1 - a)  # 2006.11239, eq. 7
    c_squared = b * (beta / (1 - a)) ** 2
    variance = posterior_variance + c_squared * mean_error
    ratio = (posterior_variance + c_squared * error) / variance
    return _summed(0.5 * (torch.log(variance / posterior_variance) + ratio - 1))


def decoder_nats(images: Tensor, denoised: Tensor, mean_error: Tensor, levels: int) -> Tensor:
    """Return -ln P(x | x_s), float64 (B,): a normal density around `denoised` with variance `mean_error`, cut into bins."""
    distance = (centres(images, levels) - denoised).double()
    scale = mean_error.double().sqrt()
    upper, lower = (distance + 1 / levels) / scale, (distance - 1 / levels) / scale
    upper = torch.where(images == levels - 1, math.inf, upper)
    lower = torch.where(images == 0, -math.inf, lower)
    # ndtr(upper) - ndtr(lower), turned to the side where both are small: a difference of two ones would be rounding.
    mirrored = lower > 0
    bin_probability = torch.special.ndtr(torch.where(mirrored, -lower, upper)) - torch.special.ndtr(
        torch.where(mirrored, -upper, lower)
    )
    return _summed(-torch.log((1 - UNIFORM_SHARE) * bin_probability + UNIFORM_SHARE / levels))


def _summed(nats: Tensor) -> Tensor:
    return nats.double().flatten(1).sum(1)
