"""p(x | z) of the integers of an image: probabilities over K levels for each value, independent given the latents.

Legend: B images, C channels, H height, W width, K levels, P numbers that a network gives for each value.

A squared or a cross-entropy error on grey values is no likelihood of integers and gives no bits/dim; these are. With few
levels each has its own probability (categorical); with many, a smooth density is cut into bins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from stages.common.images.grid import quantise
from stages.common.images.sums import running_sum

MAX_CATEGORICAL_LEVELS = 32
MIN_LOG_SCALE = -7.0
"""exp(-7) is a ninth of a bin of 256 levels: a sharper logistic gains nothing and has steep gradients."""


class PixelDistribution(ABC):
    """A distribution over {0, ..., K-1} for every value, read from `outputs` (B, C·P, H, W) of a decoder."""

    outputs_per_value: int
    """P."""

    def __init__(self, levels: int, channels: int) -> None:
        self.levels, self.channels = levels, channels

    @abstractmethod
    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Return ln P(x) of each value of `images`, uint8 (B, C, H, W), as float (B, C, H, W), in nats."""

    @abstractmethod
    def sample(self, outputs: Tensor, uniform: Tensor) -> Tensor:
        """Return one draw, uint8 (B, C, H, W); `uniform` is noise in [0, 1) of that shape."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """Return the mean in levels, float (B, C, H, W) in [0, K - 1]."""

    def _split(self, outputs: Tensor) -> Tensor:
        """Return (B, C, P, H, W)."""
        return outputs.unflatten(1, (self.channels, self.outputs_per_value))


class Categorical(PixelDistribution):
    """One logit for each level: any distribution can be said, and equal errors of near and far levels cost the same."""

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__(levels, channels)
        self.outputs_per_value = levels

    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        logits = self._split(outputs).movedim(2, -1).flatten(0, -2)
        return -functional.cross_entropy(logits, images.flatten().long(), reduction="none").view(images.shape)

    def sample(self, outputs: Tensor, uniform: Tensor) -> Tensor:
        # The level whose part of [0, 1) holds u. The last sum can round to less than 1: then the last level is taken.
        reached = running_sum(self._split(outputs).double().softmax(dim=2), dim=2) <= uniform.unsqueeze(2)
        return reached.sum(dim=2).clamp(max=self.levels - 1).to(torch.uint8)

    def mean(self, outputs: Tensor) -> Tensor:
        levels = torch.arange(self.levels, device=outputs.device, dtype=outputs.dtype)
        return torch.einsum("bckhw,k->bchw", self._split(outputs).softmax(dim=2), levels)


class DiscretisedLogistic(PixelDistribution):
    """A logistic density on [-1, 1] cut into K bins; its tails belong to the first and the last level.

    Source: Salimans et al., PixelCNN++, arXiv 1701.05517, eq. 2, with one component.
    """

    outputs_per_value = 2

    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        centre, log_scale = self._parameters(outputs)
        values, sharpness = images.to(centre.dtype), torch.exp(-log_scale)
        lower, upper = (((values + side) * (2 / self.levels) - 1 - centre) * sharpness for side in (0, 1))  # edges of bins
        below, above = functional.logsigmoid(upper), functional.logsigmoid(-lower)  # ln P(x <= this), ln P(x >= this)
        # s(a) - s(b) = s(a)·s(-b)·(1 - exp(b - a)): no difference of two numbers that are nearly equal.
        inside = below + above + torch.log(-torch.expm1(lower - upper))
        inside = torch.where(images == 0, below, inside)
        return torch.where(images == self.levels - 1, above, inside)

    def sample(self, outputs: Tensor, uniform: Tensor) -> Tensor:
        centre, log_scale = self._parameters(outputs)
        noise = torch.logit(uniform.double(), eps=1e-12).to(centre.dtype)
        return quantise(centre + torch.exp(log_scale) * noise, self.levels)

    def mean(self, outputs: Tensor) -> Tensor:
        """Return the centre of the logistic density, cut to the grid; tails beyond it do not count."""
        return ((self._parameters(outputs)[0] + 1) * (self.levels / 2) - 0.5).clamp(0, self.levels - 1)

    def _parameters(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        centre, log_scale = self._split(outputs).unbind(dim=2)
        return centre, log_scale.clamp(min=MIN_LOG_SCALE)


def pixel_distribution(levels: int, channels: int) -> PixelDistribution:
    """Return the distribution that suits K `levels`: categorical up to 32, else a discretised logistic."""
    kind = Categorical if levels <= MAX_CATEGORICAL_LEVELS else DiscretisedLogistic
    return kind(levels, channels)
