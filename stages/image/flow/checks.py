"""Does the flow keep its two promises: to come back exactly, and to know its change of volume?

Legend: B images, C channels, H height, W width, D = C·H·W values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.image.flow.flows import ImageFlow


@torch.no_grad()
def round_trip(network: ImageFlow, values: Tensor) -> Tensor:
    """Return f⁻¹(f(y)) of `values`, float (B, C, H, W) in [-1, 1]; on a computer it differs from y by rounding."""
    latents, _ = network(values)
    return network.inverse(latents)


def log_det_error(network: ImageFlow, values: Tensor) -> float:
    """Return |log_abs_det_jacobian - log |det J|| in nats, where autograd gives the whole J, D rows, of one image (C, H, W)."""
    size = values.numel()
    jacobian: Tensor = torch.autograd.functional.jacobian(lambda image: network(image.unsqueeze(0))[0], values)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        _, told = network(values.unsqueeze(0))
    return float((torch.linalg.slogdet(jacobian.reshape(size, size)).logabsdet - told[0]).abs())
