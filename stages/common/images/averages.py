"""An exponential moving average of weights: what is sampled from and judged, for every family alike.

avg <- d·avg + (1 - d)·w with d = min(decay, (1 + t) / (10 + t)) after t updates: a short training forgets its random start
(an average with d = 0.9999 after 2,000 steps is mostly the initial weights).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """Averages of the parameters of some networks, by `NETWORK.PARAMETER`.

    Attributes:
        tensors: the averages, updated in place.
    """

    def __init__(self, networks: Mapping[str, nn.Module], *, decay: float) -> None:
        self._parameters = {f"{name}.{key}": p for name, network in networks.items() for key, p in network.named_parameters()}
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, done: int) -> None:
        """Take in the weights after `done` updates (1 is the first)."""
        decay = min(self._decay, done / (9 + done))
        weights = [parameter.detach() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self.tensors.values()), weights, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the networks; the weights come back afterwards, bit for bit."""
        weights = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(weights)

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
