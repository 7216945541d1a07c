"""Ordinary differential equations that carry noise (t = 0) to data (t = 1): samples, and the density of data.

Legend: B images, C channels, H height, W width, D = C·H·W values, N steps, M probes.

dx/dt = v(x, t). Heun's method (the trapezoidal rule with a predicted end point) errs by O(1/N²) and calls the field twice
in each step. The density follows the instantaneous change of variables (Chen et al., arXiv 1806.07366, eq. 8):
    log p_1(x_1) = log N(x_0; 0, I) - ∫_0^1 div v(x_t, t) dt,
integrated backwards from the data. The divergence is the trace of a Jacobian. Hutchinson's estimate of it, the mean of
eᵀ(∂v/∂x)e over random signs e, is unbiased (FFJORD, arXiv 1810.01367, eq. 7). The signs are drawn anew at each call: the
path of x does not depend on them, so the integral stays unbiased, and its noise averages out along the path.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from stages.common.images.parts import Parts

Field = Callable[[Tensor, float], Tensor]
"""(x (B, C, H, W), t in [0, 1]) -> dx/dt, of the shape of x."""

CALLS_PER_HEUN_STEP = 2


def heun_path(field: Field, start: Tensor, *, num_steps: int) -> list[Tensor]:
    """Return x at t = 0, 1/N, ..., 1 from `start` at t = 0; 2 N calls of `field`."""
    path = [start]
    for index in range(num_steps):
        here, there = index / num_steps, (index + 1) / num_steps
        x, step = path[-1], there - here
        slope = field(x, here)
        path.append(x + step / 2 * (slope + field(x + step * slope, there)))
    return path


def heun(field: Field, start: Tensor, *, num_steps: int) -> Tensor:
    """Return x at t = 1 from `start` at t = 0; 2 N calls of `field`."""
    return heun_path(field, start, num_steps=num_steps)[-1]


def log_density(field: Field, data: Tensor, *, num_steps: int, num_probes: int, generator: torch.Generator) -> Tensor:
    """Return log p_1(`data`) in nats, float64 (B,), by Heun's method on (x, ∫ div v); 2 N calls of `field`.

    Args:
        field: the velocity; differentiable in x.
        data: (B, C, H, W).
        num_steps: N.
        num_probes: M for each divergence; D or more: the divergence is computed exactly.
        generator: of the probes.
    """
    x, by_parts = data, Parts()
    integral = torch.zeros(len(data), dtype=torch.float64, device=data.device)
    for index in range(num_steps, 0, -1):
        here, there = index / num_steps, (index - 1) / num_steps
        step = here - there
        slope, div = velocity_and_divergence(field, x, here, num_probes=num_probes, generator=generator, by_parts=by_parts)
        guess = x - step * slope
        next_slope, next_div = velocity_and_divergence(
            field, guess, there, num_probes=num_probes, generator=generator, by_parts=by_parts
        )
        x = x - step / 2 * (slope + next_slope)
        integral += step / 2 * (div + next_div)
    return standard_normal_log_density(x) - integral


def velocity_and_divergence(
    field: Field, x: Tensor, t: float, *, num_probes: int, generator: torch.Generator, by_parts: Parts | None = None
) -> tuple[Tensor, Tensor]:
    """Return v(x, t), of the shape of x, and its divergence, float64 (B,); `by_parts` knows how many rows fit."""
    exact = num_probes >= x[0].numel()
    # Drawn here, for all rows: what is drawn must not depend on the parts.
    probes = _basis(x) if exact else [_signs(x, generator) for _ in range(num_probes)]

    def measured(x: Tensor, *probes: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            velocity = field(x, t)
        divergence = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for probe in probes:
            (product,) = torch.autograd.grad(velocity, x, probe, retain_graph=True)
            divergence += (product * probe).flatten(1).sum(1).double()
        return velocity.detach(), divergence / (1 if exact else num_probes)

    velocity, divergence = (by_parts or Parts()).several(measured, x, *probes)
    return velocity, divergence


def standard_normal_log_density(x: Tensor) -> Tensor:
    """Return log N(x; 0, I) in nats, float64 (B,)."""
    squares = x.detach().double().flatten(1).square()
    return -0.5 * (squares + math.log(2 * math.pi)).sum(1)


def _signs(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return +1 or -1 with equal chances (Rademacher), of the shape of x; drawn on the CPU, so that devices agree."""
    return (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1).to(x)


def _basis(x: Tensor) -> list[Tensor]:
    """Return the D unit vectors, each for all images at once."""
    num_dims = x[0].numel()
    eye = torch.eye(num_dims, dtype=x.dtype, device=x.device)
    return [row.view(1, *x.shape[1:]).expand_as(x) for row in eye]
