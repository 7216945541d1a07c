"""What defines a discriminative classifier."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stages.common.images.config import ConditionalConfig, Count, Rate


class Config(ConditionalConfig):
    """A small convolutional network for p(c | x), trained by the loop, the budget and the labels of the generative families."""

    produces: ClassVar[str] = "discriminative_classifier"

    class_conditional: Literal[True] = True
    """Always true: it learns from labels."""
    batch_size: Count = 128
    """Images in one step over all processes."""
    learning_rate: Rate = 3e-3
    """Largest learning rate; it rises over a tenth of the steps and falls to zero along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-1
    """Decoupled weight decay of AdamW."""
    num_features: Annotated[int, Field(ge=2)] = 64
    """Width of the layer before the last."""
    first_width: Count = 32
    """Feature maps of the first convolution; each halving of the sides doubles them."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the features of the layer before the last that a training step sets to zero."""
