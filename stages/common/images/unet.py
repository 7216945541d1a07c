"""The U-Net of diffusers (`UNet2DModel`) for the images of a grid, shared by flow matching and diffusion.

Legend: B images, C channels, H height, W width, P patch size.

Larger images are cut into squares of P x P pixels, each of which becomes one place with C·P² channels: an image
(C, H, W) is (C·P², H/P, W/P) to the network, which is P² times cheaper. Nothing is lost: it only moves the values, so
noise stays standard normal and densities stay as they are. The saved network is a plain `UNet2DModel` on such images;
what comes out of diffusers' pipelines goes back through `torch.nn.functional.pixel_shuffle(images, P)`.

A size that the network cannot halve is refused and never padded: padding would be modelled too, and would be counted in
bits per dimension.
"""

from __future__ import annotations

import math

import torch
from diffusers import UNet2DModel
from torch import Tensor
from torch.nn import functional

from pipeline.errors import DataError
from stages.common.images.grid import Grid, other_size
from stages.common.images.unet_config import UNetConfig

MOST_PLACES, LARGEST_UNNAMED_PATCH = 14, 2
"""Where the config names no patch size, images with more places along a side get patches, for the sake of CPUs; but none larger
than these, whatever the device: a network that sees 4 x 4 pixels as one place is a poor model of photographs. Such a trade is
made only where the recipe names it."""
LARGEST_PATCH = 8
LARGEST_NUM_GROUPS, FEWEST_CHANNELS_IN_A_GROUP = 32, 2
"""Of the group normalisation; a group of one channel would wipe out the channel's mean."""


def to_patches(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, C·P², H/P, W/P)."""
    return functional.pixel_unshuffle(images, patch_size)


def from_patches(values: Tensor, patch_size: int) -> Tensor:
    """(B, C·P², H/P, W/P) -> (B, C, H, W), the inverse of `to_patches`."""
    return functional.pixel_shuffle(values, patch_size)


def choose_patch_size(config: UNetConfig, *, height: int, width: int) -> int:
    """Return P: the config's, or the smallest with which the network sees at most 14 places along a side, but at most 2.

    Raises:
        DataError: the sides cannot be halved as often as the network does it.
    """
    factor = 2 ** (len(config.block_out_channels) - 1)
    fitting = [p for p in range(1, LARGEST_PATCH + 1) if height % (p * factor) == 0 and width % (p * factor) == 0]
    if config.patch_size in fitting:
        return config.patch_size
    if config.patch_size is not None or not fitting:
        advice = f"set patch_size to one of {fitting}" if fitting else other_size(min(height, width), factor)
        raise DataError(
            f"images of {height}x{width} pixels do not fit patch_size {config.patch_size} and {len(config.block_out_channels)} "
            f"resolutions (block_out_channels): the sides must be multiples of patch_size x {factor}; {advice}, or set fewer "
            "entries in block_out_channels"
        )
    unnamed = [p for p in fitting if p <= LARGEST_UNNAMED_PATCH]
    small = [p for p in unnamed if max(height, width) // p <= MOST_PLACES]
    return min(small, default=max(unnamed, default=min(fitting)))


def num_groups(channels: tuple[int, ...]) -> int:
    """Return the most groups, up to 32, that divide all of `channels` and hold two channels or more each."""
    common = math.gcd(*channels)
    most = min(LARGEST_NUM_GROUPS, common // FEWEST_CHANNELS_IN_A_GROUP)
    return max((groups for groups in range(1, most + 1) if common % groups == 0), default=1)


def build_unet(config: UNetConfig, grid: Grid, *, num_classes: int = 0) -> UNet2DModel:
    """Return a fresh network (B, C·P², H/P, W/P), timesteps (B,) -> the same shape; its weights follow from `config.seed`.

    With classes it takes `class_labels` int64 (B,) as well, and adds a learnt vector of the class to that of the time.

    Raises:
        DataError: the size of the images does not fit; see `choose_patch_size`.
    """
    patch_size = choose_patch_size(config, height=grid.height, width=grid.width)
    channels, num_levels = grid.channels * patch_size**2, len(config.block_out_channels)
    down, up = ["DownBlock2D"] * num_levels, ["UpBlock2D"] * num_levels
    if config.attention:
        down[-1], up[0] = "AttnDownBlock2D", "AttnUpBlock2D"
    with torch.random.fork_rng(devices=[]):  # the layers draw from PyTorch's global generator
        torch.manual_seed(config.seed)
        return UNet2DModel(
            sample_size=(grid.height // patch_size, grid.width // patch_size),
            in_channels=channels,
            out_channels=channels,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            norm_num_groups=num_groups(config.block_out_channels),
            add_attention=config.attention,
            num_class_embeds=num_classes or None,
        )
