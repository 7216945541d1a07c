"""The size of the U-Net that flow matching and diffusion share; light, so that configs can import it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.common.images.config import Count, ImageModelConfig


class UNetConfig(ImageModelConfig):
    """Base of the configs of families whose network is a U-Net."""

    block_out_channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (16, 32)
    """Feature maps at each resolution, from fine to coarse; each entry after the first halves height and width."""

    layers_per_block: Count = 1
    """Residual blocks at each resolution on the way down; one more on the way up."""

    attention: bool = False
    """Self-attention at the coarsest resolution."""

    patch_size: Count | None = None
    """Side, in pixels, of the squares that become channels of the network's images; null: by the size of the images."""
