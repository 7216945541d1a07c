"""The autoencoders: our small one, and diffusers' `AutoencoderKL` for larger images. Both are called in the same way.

Legend: B images, C channels, H height, W width; Z x h x w the latents of one image (h = w = 1 in the small one); P numbers
that the decoder gives for each value.

    network.encode(x).latent_dist    q(z | x) of x, float (B, C, H, W) in [-1, 1]: a DiagonalGaussianDistribution over z
    network.decode(z).sample         what p(x | z) is read from, float (B, C·P, H, W)

A class-conditional network takes `labels` as well, int64 (B,): q(z | x, c) and p(x | z, c) (Sohn et al., Learning Structured
Output Representation using Deep Conditional Generative Models, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor
from torch.nn import functional

from pipeline.errors import DataError
from stages.common.images.blocks import Decoder, Encoder
from stages.common.images.grid import Grid
from stages.image.vae.config import Config
from stages.image.vae.prior import Prior, StandardPrior, make_prior

_STANDARD = StandardPrior()
NORM_GROUPS = 8
"""Groups of feature maps that AutoencoderKL normalises together."""


class SmallAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An encoder, a decoder and a prior; the latents have no place in the image.

    Args:
        channels, height, width: C, H, W; the sides are multiples of 2^num_levels.
        outputs_per_value: P.
        latent_channels: Z.
        hidden_size: feature maps of the decoder at the coarsest level, a multiple of 2^num_levels.
        encoder_hidden_size: the same of the encoder.
        num_levels: how often the sides are halved.
        num_blocks: residual blocks at each level.
        prior_components: normal distributions in the prior.
        num_classes: of a class-conditional network; 0: it knows no classes.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        channels: int,
        height: int,
        width: int,
        outputs_per_value: int,
        latent_channels: int,
        hidden_size: int,
        encoder_hidden_size: int,
        num_levels: int,
        num_blocks: int,
        prior_components: int,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self._num_classes = num_classes
        sizes: dict[str, Any] = {"height": height, "width": width, "num_levels": num_levels, "num_blocks": num_blocks}
        inputs, outputs = channels + num_classes, channels * outputs_per_value
        # A class is given as K more numbers, 1 for it and 0 for the others: to the encoder at every pixel.
        self.encoder = Encoder(inputs, 2 * latent_channels, hidden_size=encoder_hidden_size, dense=True, **sizes)
        self.decoder = Decoder(latent_channels + num_classes, outputs, hidden_size=hidden_size, dense=True, **sizes)
        self.prior = make_prior(latent_channels, prior_components)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> AutoencoderKLOutput:
        """Return q(z | x), or q(z | x, c): mean and log-variance, each (B, Z, 1, 1)."""
        if labels is not None:
            planes = self._one_hot(labels)[:, :, None, None].expand(-1, -1, *images.shape[2:])
            images = torch.cat([images, planes], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(self.encoder(images)[:, :, None, None]))

    def decode(self, latents: Tensor, labels: Tensor | None = None, *, factors: Sequence[Tensor] = ()) -> DecoderOutput:
        """Return (B, C·P, H, W) of latents (B, Z, 1, 1); `factors` as in `Decoder`."""
        flat = latents.flatten(1)
        inputs = flat if labels is None else torch.cat([flat, self._one_hot(labels)], dim=1)
        return DecoderOutput(sample=self.decoder(inputs, factors))

    def _one_hot(self, labels: Tensor) -> Tensor:
        return functional.one_hot(labels, self._num_classes).to(self.dtype)


Autoencoder = SmallAutoencoder | AutoencoderKL


def make_autoencoder(grid: Grid, config: Config, outputs_per_value: int) -> Autoencoder:
    """Return the network that `config.architecture` names.

    Raises:
        DataError: the images' sides cannot be halved so often.
    """
    if config.architecture == "small":
        return SmallAutoencoder(
            channels=grid.channels,
            height=grid.height,
            width=grid.width,
            outputs_per_value=outputs_per_value,
            latent_channels=config.latent_channels,
            hidden_size=config.hidden_size,
            encoder_hidden_size=config.encoder_hidden_size,
            num_levels=config.num_levels,
            num_blocks=config.num_blocks,
            prior_components=config.prior_components,
            num_classes=len(grid.classes) if config.class_conditional else 0,
        )
    return _autoencoder_kl(grid, config, outputs_per_value)


def prior_of(network: Autoencoder) -> Prior:
    """Return p(z); of AutoencoderKL it is N(0, 1)."""
    return _STANDARD if isinstance(network, AutoencoderKL) else network.prior


def latent_shape(network: Autoencoder, grid: Grid) -> tuple[int, int, int]:
    """Return (Z, h, w)."""
    if isinstance(network, AutoencoderKL):
        factor = 2 ** (len(network.config.block_out_channels) - 1)
        return network.config.latent_channels, grid.height // factor, grid.width // factor
    return network.config.latent_channels, 1, 1


def _autoencoder_kl(grid: Grid, config: Config, outputs_per_value: int) -> AutoencoderKL:
    factor = 2**config.num_levels
    for name, side in (("height", grid.height), ("width", grid.width)):
        if side % factor:
            raise DataError(f"{name} {side} is not a multiple of {factor} (num_levels {config.num_levels}); set fewer levels")
    if config.hidden_size % (NORM_GROUPS * factor):
        raise DataError(
            f"hidden_size {config.hidden_size} is not a multiple of {NORM_GROUPS * factor}: every level of AutoencoderKL has "
            f"{NORM_GROUPS} groups of feature maps, and the finest has hidden_size / {factor}"
        )
    widths = [config.hidden_size >> level for level in reversed(range(config.num_levels + 1))]
    return AutoencoderKL(
        in_channels=grid.channels,
        out_channels=grid.channels * outputs_per_value,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=tuple(widths),
        layers_per_block=config.num_blocks,
        latent_channels=config.latent_channels,
        norm_num_groups=NORM_GROUPS,
        sample_size=grid.height,
        scaling_factor=1.0,
    )
