"""How far the denoised image is from the true one, for each value and timestep: what the best variances follow from."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

PRIOR_VARIANCE = 1 / 3
"""Of a value that is uniform on [-1, 1]."""
GAIN = 10.0
"""The optimiser moves a parameter by about the learning rate in a step; the logarithm of an error has to move faster."""


class SquaredErrorTable(ModelMixin, ConfigMixin):
    """E(x - x^)² as exp(table)·e(t), where e(t) = v·(1 - a) / (v·a + 1 - a) would hold for independent normal values.

    The table has `num_knots` entries along the timesteps for each value, with straight lines between them.

    Args:
        shape: (C, H, W) of the network's images.
        num_knots: 2 or more.
    """

    @register_to_config
    def __init__(self, shape: tuple[int, int, int], num_knots: int = 16) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_knots, *shape))

    def forward(self, place: Tensor, alphas_cumprod: Tensor) -> Tensor:
        """Return E(x - x^)², float (B, C, H, W), at timesteps of the B `place` = t / (T - 1) and `alphas_cumprod` = a."""
        position = place * (len(self.table) - 1)
        below = position.long().clamp(max=len(self.table) - 2)
        share = (position - below).view(-1, 1, 1, 1)
        logarithm = torch.lerp(self.table[below], self.table[below + 1], share)
        a = alphas_cumprod.view(-1, 1, 1, 1)
        return PRIOR_VARIANCE * (1 - a) / (PRIOR_VARIANCE * a + 1 - a) * torch.exp(GAIN * logarithm)
