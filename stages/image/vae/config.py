"""What defines a variational autoencoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.common.images.config import ConditionalConfig, Count, Rate, refuse_without_effect


class Config(ConditionalConfig):
    """An encoder squeezes an image into a few noisy numbers, a decoder says how probable each image is given them."""

    batch_size: Count = 64
    """Images in one step over all processes."""
    learning_rate: Rate = 6e-3
    """Largest learning rate; it rises over a tenth of the steps and falls to zero along a cosine."""
    architecture: Literal["small", "autoencoder_kl"] = "small"
    """small: latents without a place, for 8x8 to 32x32. autoencoder_kl: diffusers' AutoencoderKL, latents on a small map."""
    latent_channels: Count = 16
    """Numbers in a latent; of autoencoder_kl at each place of its map."""
    hidden_size: Count = 32
    """Feature maps at the coarsest level, a multiple of 2^num_levels (of 8·2^num_levels for autoencoder_kl)."""
    encoder_hidden_size: Count = 16
    """The same of the small architecture's encoder, which has the easier task."""
    num_levels: Count = 1
    """How often the sides of an image are halved on the way to the coarsest level."""
    num_blocks: Count = 1
    """Residual blocks at each level."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of feature maps of the small architecture's decoder that are silenced, after each block, while training."""
    prior_components: Count = 32
    """Normal distributions in the learnt prior of the small architecture; 1 is N(0, 1), which autoencoder_kl always has."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the KL divergence in the loss. Only 1 makes the loss a bound on the likelihood; what is reported always is."""
    num_importance_samples: Count = 128
    """Latents drawn for each image when bits per dimension are measured, k of the IWAE bound."""

    @model_validator(mode="after")
    def _everything_counts(self) -> Self:
        if self.architecture != "small":
            only_small = ("encoder_hidden_size", "dropout", "prior_components", "class_conditional")
            refuse_without_effect(self, only_small, f"architecture: {self.architecture}")
        if self.class_conditional:
            refuse_without_effect(self, ("num_importance_samples",), "class_conditional: true (num_class_draws counts there)")
        return self
