"""What a peer's side of the image benchmarks needs inside its own environment: PyTorch and nothing of ours but the ledger.

Legend: B images, k draws, C channels, H height, W width, D = C·H·W values, K levels.

Both accountings end in bits per dimension of the *integers*, as our stages count them: a density over dequantised values
is turned into a bound on the probability of a bin, and a model with latents needs a p(x | z) over the K levels. The tests
hold both against our stages' own numbers.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.common.images.ledger import FlopLedger

NUM_DRAWS = 32
"""Draws of the dequantisation noise in a bound, as in our flow stage."""
NUM_SAMPLES = 1000
"""Images that are drawn for a Frechet distance."""
NUM_LATENTS = 128
"""Latents in an IWAE bound, as in our VAE stage."""
WARMUP_SHARE, MAX_GRADIENT_NORM, AVERAGE_DECAY, WEIGHT_DECAY = 0.1, 1.0, 0.999, 1e-4
"""Of the loop for packages that bring none: the values of our own stages."""
NUM_LOOKS = 20
"""How often that loop looks at the validation images."""


@dataclass(frozen=True)
class Images:
    """The splits of one grid, uint8 (B, C, H, W), and K."""

    train: Tensor
    validation: Tensor
    test: Tensor
    levels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def num_dims(self) -> int:
        """D."""
        return math.prod(self.shape)


def load_images(path: Path) -> Images:
    """Read what `image_peers.prepare` wrote."""
    found = np.load(path)
    return Images(*(torch.from_numpy(found[name]) for name in ("train", "validation", "test")), levels=int(found["levels"]))


def discrete_bits(log_probs: Tensor, num_dims: int) -> Tensor:
    """Return bits/dim, float64 (B,), of log probabilities of integer images in nats (B,)."""
    return -log_probs.double() / (num_dims * math.log(2))


def density_bits(log_densities: Tensor, *, num_dims: int, levels: int, width: float) -> Tensor:
    """Return bits/dim, float64 (B,), by log2 P(x) >= log2 (1/k) Σ p(y_i) + D·log2(width / K).

    Args:
        log_densities: of k dequantised versions of each image, in nats (k, B).
        num_dims: D.
        levels: K.
        width: of the interval that the K levels fill on the model's scale; a bin is width / K wide.
    """
    log_means = torch.logsumexp(log_densities.double(), dim=0) - math.log(len(log_densities))
    return discrete_bits(log_means + num_dims * math.log(width / levels), num_dims)


def importance_bits(log_weights: Tensor, num_dims: int) -> Tensor:
    """Return bits/dim of the IWAE bound, float64 (B,), of ln p(x | z) p(z) / q(z | x) of k latents each, in nats (B, k)."""
    log_means = torch.logsumexp(log_weights.double(), dim=1) - math.log(log_weights.shape[1])
    return discrete_bits(log_means, num_dims)


def dequantise(images: Tensor, levels: int, noise: Tensor, *, low: float, width: float) -> Tensor:
    """Return low + width·(x + u) / K of images (B, C, H, W) and u in [0, 1)."""
    return low + width * (images.to(noise.dtype) + noise) / levels


def flops_of(loss: Callable[[], Tensor]) -> int:
    """Return the counted FLOPs of one loss and its gradients."""
    with FlopLedger() as ledger:
        loss().backward()
    return ledger.flops


@dataclass(frozen=True, kw_only=True)
class Density:
    """A density model and the scale of its inputs.

    Attributes:
        network: its parameters are trained.
        log_prob: values (B, C, H, W) -> log densities in nats (B,).
        low, width: the levels fill [low, low + width) on the model's scale.
    """

    network: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    low: float
    width: float

    def bits(self, images: Tensor, levels: int, num_draws: int) -> Tensor:
        """Return the bound with k = `num_draws`, bits/dim (B,)."""
        scale = {"low": self.low, "width": self.width}
        draws = [self.log_prob(dequantise(images, levels, torch.rand(images.shape), **scale)) for _ in range(num_draws)]
        return density_bits(torch.stack(draws), num_dims=images[0].numel(), levels=levels, width=self.width)


class DensityTraining:
    """The loop for packages that bring none: our stages' recipe, and beyond it the best of NUM_LOOKS looks at validation.

    AdamW with a warm-up over a tenth of the steps and half a cosine, gradients cut at norm 1, averaged weights. Looking
    at held-out images is a favour that our stages do not allow themselves.
    """

    def __init__(self, density: Density, images: Images, *, rate: float, batch_size: int) -> None:
        self.density, self.images, self.batch_size = density, images, batch_size
        network = density.network
        with torch.no_grad():
            self.loss()  # networks that look at their first batch to scale themselves do so now
        self.flops_per_step = flops_of(self.loss)
        network.zero_grad(set_to_none=True)
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
        self._rate, self._averaged = rate, copy.deepcopy(network).requires_grad_(requires_grad=False)
        self.best: tuple[float, Mapping[str, Tensor]] = (math.inf, {})

    def loss(self) -> Tensor:
        """Return bits/dim of a batch drawn at random, with one draw of noise."""
        rows = torch.randint(len(self.images.train), (self.batch_size,))
        return self.density.bits(self.images.train[rows], self.images.levels, 1).mean()

    def run(self, num_steps: int, *, look: bool = True) -> None:
        """Train, looking at the validation images on the way."""
        pause = max(1, num_steps // NUM_LOOKS)
        for step in range(num_steps):
            self._step(step, num_steps)
            if look and ((step + 1) % pause == 0 or step + 1 == num_steps):
                self._look()

    def _step(self, step: int, num_steps: int) -> None:
        warmup = max(1, round(WARMUP_SHARE * num_steps))
        down = 0.5 * (1 + math.cos(math.pi * (step + 1 - warmup) / (num_steps + 1 - warmup)))
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * ((step + 1) / warmup if step < warmup else down)
        self.loss().backward()
        weights = list(self.density.network.parameters())
        norm = nn.utils.clip_grad_norm_(weights, MAX_GRADIENT_NORM)
        if bool(torch.isfinite(norm)):  # a step that is not finite is left out, where our stages would stop
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        decay = min(AVERAGE_DECAY, (step + 1) / (10 + step))
        torch._foreach_lerp_(list(self._averaged.parameters()), [w.detach() for w in weights], 1 - decay)

    @torch.no_grad()
    def _look(self) -> None:
        network = self.density.network
        weights = copy.deepcopy(network.state_dict())
        averages = weights | {key: value.detach().clone() for key, value in self._averaged.named_parameters()}
        network.load_state_dict(averages)
        found = float(self.density.bits(self.images.validation, self.images.levels, 4).mean())
        if found < self.best[0]:
            self.best = (found, averages)
        network.load_state_dict(weights)


def parser_of(description: str | None) -> ArgumentParser:
    """Return the options of a peer's side, which the scripts pass to themselves."""
    parser = ArgumentParser(description=description)
    parser.add_argument("--side", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON; what is too large for it lies beside it")
    parser.add_argument("--variant", default="")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=0.6, help="TFLOP")
    parser.add_argument("--bursts", action="store_true", help="train a little for each line of standard input")
    return parser


def start(arguments: Namespace) -> Images:
    """Set threads and seed and return the images."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)
    return load_images(arguments.data)


def write_result(arguments: Namespace, **found: Any) -> None:
    """Write the result in one move, so that a run that was cut off leaves none."""
    partial = arguments.out.with_suffix(".partial")
    partial.write_text(json.dumps(found))
    partial.replace(arguments.out)


def serve_bursts(burst: Callable[[], tuple[int, float]]) -> None:
    """For each line of standard input train a little and print images per CPU second.

    One thread computes, so on a machine that does nothing else CPU seconds are wall seconds; beside other work only they
    say how fast the code is.

    Args:
        burst: trains; returns the images and the CPU seconds that do not count, such as those of saving.
    """
    burst()  # the first one allocates
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.process_time()
        num_images, left_out = burst()
        print(num_images / (time.process_time() - begin - left_out), flush=True)
