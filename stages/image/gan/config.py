"""What defines a GAN."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.images.config import Count, ImageModelConfig, Rate, refuse_without_effect

Decay = Annotated[float, Field(ge=0, lt=1)]


class Config(ImageModelConfig):
    """A generator learns to make images that a discriminator, trained beside it, cannot tell from real ones."""

    batch_size: Count = 32
    """Images in one step over all processes; a step trains the discriminator once and the generator once. A game needs many
    moves: at the same FLOPs small batches did better than large ones."""
    learning_rate: Rate = 2e-3
    """Largest learning rate of both networks; it rises over a tenth of the steps and falls to zero along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of AdamW; 0 is plain Adam."""
    beta1: Decay = 0.0
    """Adam's momentum, for each step: in a game the opponent moves, and old gradients point at where it was."""
    beta2: Decay = 0.9
    """Adam's memory of squared gradients, for each step."""

    loss: Literal["relativistic", "non_saturating"] = "relativistic"
    """relativistic: a real image must look more real than a fake one (R3GAN). non_saturating: the classic game of 2014."""
    penalty: Literal["r1_r2", "r1", "none"] = "r1_r2"
    """Which gradient penalties keep the discriminator smooth at every step: on real and fake images, on real ones, or none."""
    gamma: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the gradient penalties; it grows with the resolution and depends on the range of pixels, here [-1, 1)."""

    latent_size: Count = 32
    """Numbers in a latent, drawn from a standard normal distribution."""
    generator_size: Count = 64
    """Feature maps of the generator at its coarsest level, a multiple of 2^num_levels."""
    discriminator_size: Count = 32
    """Feature maps of the discriminator at its coarsest level, a multiple of 2^num_levels. With its penalties it takes most of
    the FLOPs of a step, so a smaller one leaves more steps to a budget."""
    num_levels: Count = 2
    """How often the sides of an image are halved on the way to the coarsest level."""
    num_blocks: Count = 1
    """Residual blocks at each level."""

    @model_validator(mode="after")
    def _everything_counts(self) -> Self:
        if self.penalty == "none":
            refuse_without_effect(self, ("gamma",), "penalty: none")
        return self
