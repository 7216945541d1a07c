"""What defines a variational autoencoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.images.config import ConditionalConfig, Count, Rate


class Config(ConditionalConfig):
    """An encoder squeezes an image into a few noisy numbers, a decoder says how probable each image is given them."""

    batch_size: Count = 64
    """Images in one step over all processes."""
    learning_rate: Rate = 3e-3
    """Largest learning rate; it rises over a tenth of the steps and falls to zero along a cosine."""
    architecture: Literal["small", "autoencoder_kl"] = "small"
    """small: latents without a place, for 8x8 to 32x32. autoencoder_kl: diffusers' AutoencoderKL, latents on a small map."""
    latent_channels: Count = 16
    """Numbers in a latent; of autoencoder_kl at each place of its map."""
    hidden_size: Count = 64
    """Feature maps at the coarsest level, a multiple of 2^num_levels (of 8·2^num_levels for autoencoder_kl)."""
    num_levels: Count = 2
    """How often the sides of an image are halved on the way to the coarsest level."""
    num_blocks: Count = 1
    """Residual blocks at each level."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the KL divergence in the loss. Only 1 makes the loss a bound on the likelihood; what is reported always is."""
    num_importance_samples: Count = 128
    """Latents drawn for each image when bits per dimension are measured, k of the IWAE bound."""

    @model_validator(mode="after")
    def _classes_need_the_small_network(self) -> Self:
        if self.class_conditional and self.architecture != "small":
            raise ValueError(f"class_conditional needs architecture small: {self.architecture} has no place for a class")
        return self
