"""What defines a diffusion model."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from stages.common.images.config import Count, Rate
from stages.common.images.unet_config import UNetConfig


class Config(UNetConfig):
    """A U-Net that predicts the noise in an image (DDPM), with the cosine schedule."""

    batch_size: Count = 32
    """Images in one step over all processes."""
    learning_rate: Rate = 4e-3
    """Largest learning rate; it rises over a tenth of the steps and falls to zero along a cosine."""
    num_timesteps: Count = 200
    """Steps T from an image to pure noise; the network knows each, and the bound on the likelihood adds up all but the
    first few, whose noise is smaller than half a bin of the grid."""

    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    """What the network says of a noisy image: the noise in it, or a mix of noise and image of one size at every step."""

    num_sample_steps: Count = 50
    """Steps of a sample, one call of the network each; a divisor of num_timesteps."""

    @model_validator(mode="after")
    def _steps_are_even(self) -> Config:
        if self.num_timesteps % self.num_sample_steps:
            raise ValueError(
                f"num_sample_steps is {self.num_sample_steps}: diffusers' samplers leave out every k-th step, so it must divide "
                f"num_timesteps ({self.num_timesteps})"
            )
        return self
