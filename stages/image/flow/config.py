"""What defines a normalizing flow."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.common.images.config import ConditionalConfig, Count, refuse_without_effect


class Config(ConditionalConfig):
    """An image is taken to evenly spread numbers by steps that can be undone, so its density is known exactly."""

    architecture: Literal["coupling", "autoregressive"] = "coupling"
    """coupling: half of the values change as the other half says, one pass to sample. autoregressive: each patch changes as
    the patches before it say, one pass for each patch to sample."""
    batch_size: Count = 64
    """Images in one step over all processes."""
    learning_rate: float = Field(default=8e-3, gt=0)
    """Largest learning rate; it rises over a tenth of the steps and falls to zero along a cosine."""
    patch_size: Count = 2
    """Side of the squares that an image is cut into, pixels; a divisor of its sides. A coupling flow splits each square."""
    num_transforms: Count = 4
    """Transforms one after the other, each with a network of its own."""
    num_bins: int = Field(default=8, ge=2, le=256)
    """Pieces of the spline that a value goes through."""
    hidden_size: Count = 48
    """Width of the network in each transform; autoregressive: a multiple of num_heads."""
    num_layers: Count = 1
    """Layers of the network in each transform: residual convolutions, or autoregressive a transformer's."""
    num_heads: Count = 4
    """Attention heads of an autoregressive flow's networks."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the networks' features that a training step sets to zero."""
    num_dequantisation_draws: Count = 32
    """Draws of the dequantisation noise for each image when bits per dimension are measured, k of the bound."""

    @model_validator(mode="after")
    def _everything_counts(self) -> Self:
        if self.architecture == "coupling":
            refuse_without_effect(self, ("num_heads",), "architecture: coupling, which has no attention")
        if self.class_conditional:
            refuse_without_effect(self, ("num_dequantisation_draws",), "class_conditional: true (num_class_draws counts there)")
        return self
