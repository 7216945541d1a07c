"""What defines a flow-matching model."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from stages.common.images.config import ConditionalConfig, Count, Rate, refuse_without_effect
from stages.common.images.unet_config import UNetConfig


class Config(UNetConfig, ConditionalConfig):
    """A U-Net that predicts the velocity along straight lines from noise (t = 0) to images (t = 1)."""

    batch_size: Count = 32
    """Images in one step over all processes."""
    learning_rate: Rate = 8e-3
    """Largest learning rate; it rises over a tenth of the steps and falls to zero along a cosine."""
    time_mean: float = 0.5
    """Mean of the logit of the times that are trained, 1; above 0: more times near the images."""

    time_scale: Rate = 1.0
    """Standard deviation of the logit of the times that are trained, 1."""

    num_sample_steps: Count = 20
    """Steps of Heun's method for a sample; each calls the network twice."""

    num_likelihood_steps: Count = 40
    """Steps of Heun's method from an image back to noise, for its density; each calls the network twice."""

    num_class_draws: Annotated[int, Field(ge=2, multiple_of=2)] = 2
    """Random draws for each image and class, the same for all classes; two halves of them tell the estimator's noise."""

    num_class_steps: Count = 8
    """Steps of Heun's method for the density given a class, for which every image is integrated once for each class and draw."""

    num_probes: Count = 4
    """Random vectors for each divergence (Hutchinson); as many as an image has values, or more: exact and slow."""

    @model_validator(mode="after")
    def _everything_counts(self) -> Self:
        if self.class_conditional:
            refuse_without_effect(
                self,
                ("num_likelihood_steps", "num_probes"),
                "class_conditional: true (num_class_steps, num_class_draws count)",
            )
        else:
            refuse_without_effect(self, ("num_class_steps",), "class_conditional: false")
        return self
