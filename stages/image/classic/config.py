"""What defines a classic density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.contract import Input, StageConfig

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0)]


class Config(StageConfig):
    """Densities without a network, fitted in closed form or by EM within seconds."""

    produces: ClassVar[str] = "image_model"
    inputs: ClassVar[Mapping[str, Input]] = {
        "images": Input(kinds=("images",), help="images on one grid; the train split is fitted, validation chooses the ridge"),
    }

    seed: int = 1337
    """Seed of EM's start, of dequantisation and of samples."""
    model: Literal["independent", "gaussian", "ppca", "gmm"] = "gmm"
    """independent: each value alone. gaussian: one full covariance. ppca: a Gaussian with num_components directions. gmm: a
    mixture of num_components full Gaussians."""
    num_components: Count = 10
    """Latent directions of ppca, Gaussians of gmm; the others have none."""
    smoothing: Share = 1.0
    """Added to the count of each level of each value (independent), so that no level is impossible."""
    ridges: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.0, 0.003, 0.01, 0.03, 0.1)
    """Tried on the validation split: variance added to every value, as a share of the values' mean variance. The variance of
    the noise of dequantisation is always there, so that a constant pixel has a density."""
    max_train_images: Count = 10_000
    """Images fitted; of a larger train split the first ones."""
    max_iterations: Count = 200
    """Iterations of EM at most (gmm)."""

    num_draws: Count = 32
    """Draws of dequantisation noise for each image when bits per dimension are measured."""
    num_samples: Count = 1000
    """Images drawn at the end for the metrics."""
    num_likelihood_images: Count = 500
    """Images of each split on which bits per dimension are measured (all, if there are fewer)."""
