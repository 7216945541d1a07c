"""What a family of generative models must offer, so that one training and one comparison serve all of them.

Legend: B images, C channels, H height, W width.

A family trains in turns: each of its `players` is a module that maps a batch to the loss of the parameters registered in
it. A likelihood model has one player; a GAN has two, the discriminator's and the generator's, each of which holds the
other network without registering it. So Accelerate can wrap every player for data-parallel training on its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from diffusers.models.modeling_utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.contract import Context
from stages.common.images.config import ImageModelConfig
from stages.common.images.grid import Grid
from stages.common.images.noise import BatchNoise

History = Mapping[str, list[float]]
Sampler = Callable[[int, torch.Generator], Tensor]
"""(num_images, generator) -> images on the grid, uint8 (num_images, C, H, W)."""
BY_CALLS = "samples_by_calls.safetensors"
"""Samples drawn with fewer calls of the network than usual: number of calls -> uint8 (N, C, H, W)."""
PATHS = "paths.safetensors"
"""Ways through a latent space from one test image to another, in T steps: `images`, uint8 (P, T+1, C, H, W)."""
LikelihoodKind = Literal["exact", "lower bound", "numerical", "none"]
KINDS: Mapping[str, str] = {"numerical": "a solver's bound"}
"""Kind of bits -> its name in tables, where that is another one."""


class Player(nn.Module, ABC):
    """The loss of one network (or of several that are trained together)."""

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor, noise: BatchNoise) -> dict[str, Tensor]:
        """Return `loss`, to be minimised, and more scalars to be logged.

        Args:
            images: uint8 (B, C, H, W) on the grid.
            labels: int64 (B,), -1 where there is none.
            noise: the only source of randomness.
        """


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How one player learns; AdamW with a one-cycle learning rate."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0

    @classmethod
    def of(cls, config: ImageModelConfig, *, betas: tuple[float, float] = (0.9, 0.999)) -> Optimisation:
        """Return what the config says, for a player that learns as every other does but for `betas`."""
        return cls(
            learning_rate=config.learning_rate,
            betas=betas,
            weight_decay=config.weight_decay,
            max_gradient_norm=config.max_gradient_norm,
        )


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Bits per dimension of images, one value each.

    Attributes:
        bits: float64 (B,), bits/dim.
        kind: what the number is; never compare without it.
        detail: how it was computed, such as "IWAE, k = 128".
    """

    bits: Tensor
    kind: LikelihoodKind
    detail: str


class Trainable(ABC):
    """Networks that one training loop can train."""

    name: ClassVar[str]
    """Short name, such as `vae`."""

    grid: Grid

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """Return the losses in the order in which a step plays them."""

    @abstractmethod
    def optimisation(self) -> dict[str, Optimisation]:
        """Return how each player learns."""

    @abstractmethod
    def averaged(self) -> dict[str, nn.Module]:
        """Return the networks that sampling and likelihood need; an exponential moving average is kept of these."""


class Family(Trainable):
    """One family of generative models on one grid. All methods use the weights that its networks hold at the time."""

    @abstractmethod
    def sample(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Return images on the grid, uint8 (num_images, C, H, W)."""

    def sample_sets(self) -> dict[str, Sampler]:
        """Return other ways to sample, by name, such as the means of a VAE's decoder."""
        return {}

    def shorter_paths(self) -> dict[int, Sampler]:
        """Return ways to sample with fewer calls of the network, by their number; empty where the number is fixed."""
        return {}

    @abstractmethod
    def likelihood(self, images: Tensor, generator: torch.Generator) -> Likelihood | None:
        """Return bits per dimension of `images`, uint8 (B, C, H, W); None where the family has no likelihood."""

    @property
    @abstractmethod
    def num_function_evaluations(self) -> int:
        """Calls of the network that one sample needs, one after the other."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Save the model in diffusers' form under `directory`."""

    @abstractmethod
    def saved(self) -> Mapping[str, nn.Module]:
        """Return the averaged networks by the folder that `save` puts each into; "" is the directory itself."""

    def restored(self, directory: Path) -> Self:
        """Fill the averaged networks with what `save` wrote under `directory`, and return the family."""
        for folder, network in self.saved().items():
            network.load_state_dict(load_file(directory / folder / SAFETENSORS_WEIGHTS_NAME))
            network.eval()
        return self

    @abstractmethod
    def usage(self) -> str:
        """Return Python that draws 16 images with what `save` wrote into FOLDER, and leaves them in `images`."""

    @abstractmethod
    def report(self, context: Context, images: Tensor, generator: torch.Generator, history: History) -> None:
        """Describe the section and add the family's own pictures and metrics.

        Args:
            context: of the stage.
            images: test images, uint8 (B, C, H, W).
            generator: for latents and noise.
            history: the logged scalars of each player, NAME.KEY -> values, and `step`; what they reveal (a collapse) is shown.
        """


class ConditionalFamily(Family):
    """A family that can learn one density for each class; with `num_classes` 0 it knows nothing of classes."""

    pooling: ClassVar[Literal["probabilities", "logarithms"]]
    """How draws of `log_probs_given` become one number: the mean of P (a bound that tightens) or the mean of ln P."""

    num_classes: int

    @abstractmethod
    def sample_given(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return one image of each of `labels`, int64 (B,), as uint8 (B, C, H, W)."""

    @abstractmethod
    def log_probs_given(self, images: Tensor, label: int, generator: torch.Generator) -> Tensor:
        """Return estimates of ln P(x | c = `label`), float64 (num_class_draws, B), in nats.

        Randomness depends on the generator and the shape of `images` alone: with a generator of one seed, all classes are
        judged by the same draws, and what is left of their noise cancels in differences between classes.
        """

    @property
    @abstractmethod
    def class_detail(self) -> str:
        """How `log_probs_given` computes, in a few words."""
