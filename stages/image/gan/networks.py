"""The two networks of a GAN as diffusers models. Neither has batch normalisation: no image of a batch sees another.

Legend: B images, C channels, H height, W width; Z size of a latent.

The discriminator has convolutions only. Its gradient penalties need derivatives of derivatives, which the fused kernels of
attention do not have.
"""

from __future__ import annotations

from typing import Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from stages.common.images.blocks import Decoder, Encoder


class Generator(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Latents (B, Z) -> images (B, C, H, W) on the scale of `dequantise`, where [-1, 1) holds all levels of the grid.

    Args:
        latent_size: Z.
        channels, height, width: of the images; the sides are multiples of 2^num_levels.
        levels: K of the grid that images are brought back to.
        hidden_size: feature maps at the coarsest level, a multiple of 2^num_levels.
        num_levels: how often the sides double.
        num_blocks: residual blocks at each level.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        latent_size: int,
        channels: int,
        height: int,
        width: int,
        levels: int,  # noqa: ARG002 - kept in the config, for whoever samples
        hidden_size: int,
        num_levels: int,
        num_blocks: int,
    ) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"height": height, "width": width, "hidden_size": hidden_size}
        self.decoder = Decoder(latent_size, channels, **sizes, num_levels=num_levels, num_blocks=num_blocks)

    def forward(self, latents: Tensor) -> Tensor:
        images: Tensor = self.decoder(latents)
        return images


class Discriminator(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Images (B, C, H, W) on the scale of `dequantise` -> logits (B,), higher where an image looks more real.

    The arguments are those of `Generator`.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, *, channels: int, height: int, width: int, hidden_size: int, num_levels: int, num_blocks: int) -> None:
        super().__init__()
        sizes: dict[str, Any] = {"height": height, "width": width, "hidden_size": hidden_size}
        self.encoder = Encoder(channels, 1, **sizes, num_levels=num_levels, num_blocks=num_blocks)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.encoder(images)
        return logits[:, 0]
