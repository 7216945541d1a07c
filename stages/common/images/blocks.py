"""Small convolutional networks for images of 8x8 to 32x32, shared by the families that need an encoder or a decoder.

Legend: B images, C channels, H height, W width of the image; Z size of a latent or of any flat output; F feature maps at
the trunk, the coarsest level, which has H / 2^L x W / 2^L places.

The block is the residual one of ResNeXt (Xie et al., arXiv 1611.05431, fig. 3c): 1x1 -> grouped 3x3 -> 1x1, here without
normalisation, as in R3GAN (Huang et al., arXiv 2501.05441, section 4), so that no image of a batch sees another. Each
level up has half the feature maps of the one below, so that every level costs about the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import DataError
from stages.common.images.grid import other_size

NEGATIVE_SLOPE = 0.2
GROUP_WIDTH = 16
"""Feature maps in one group of a 3x3 convolution."""


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, computed as what it is: one matrix product over the feature maps of every place.

    On small images a CPU is about twice as fast with it as with the library's convolution, and the feature maps of what comes out
    lie beside each other in memory (`channels_last`), as later convolutions prefer. Parameters are those of `nn.Conv2d(., ., 1)`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """x + 1x1(act(3x3(act(1x1(x))))) over feature maps (B, `width`, h, w); the identity until its last layer has learnt.

    The 3x3 convolution sees twice as many feature maps in groups of GROUP_WIDTH, or, if `dense`, all of `width` at once.
    """

    def __init__(self, width: int, *, dense: bool = False) -> None:
        super().__init__()
        hidden = width if dense else 2 * width
        groups = 1 if dense else hidden // math.gcd(hidden, GROUP_WIDTH)
        self.widen = Pointwise(width, hidden)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups)
        self.narrow = Pointwise(hidden, width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.leaky_relu(self.widen(x), NEGATIVE_SLOPE)
        return x + self.narrow(functional.leaky_relu(self.mix(hidden), NEGATIVE_SLOPE))


class Decoder(nn.Module):
    """Latents (B, Z) -> image-shaped output (B, `out_channels`, H, W).

    Args:
        latent_size: Z.
        out_channels: values per place of the image.
        height, width: of the image; multiples of 2^num_levels.
        hidden_size: F, a multiple of 2^num_levels.
        num_levels: L, how often the sides double.
        num_blocks: residual blocks at each level.
        dense: the shape of the blocks.

    Attributes:
        block_widths: feature maps of each residual block, in order.

    Raises:
        DataError: a size is not a multiple of 2^num_levels.
    """

    def __init__(
        self,
        latent_size: int,
        out_channels: int,
        *,
        height: int,
        width: int,
        hidden_size: int = 64,
        num_levels: int = 2,
        num_blocks: int = 1,
        dense: bool = False,
    ) -> None:
        super().__init__()
        sides = trunk_sides(height, width, hidden_size, num_levels)
        self.unflatten = nn.Sequential(nn.Linear(latent_size, hidden_size * sides[0] * sides[1]), nn.Unflatten(1, (-1, *sides)))
        layers: list[nn.Module] = []
        for level in range(num_levels):
            features = hidden_size >> level
            layers += [*_blocks(features, num_blocks, dense), Pointwise(features, features * 2), nn.PixelShuffle(2)]
        features = hidden_size >> num_levels
        self.layers = nn.ModuleList([*layers, *_blocks(features, num_blocks, dense)])
        self.block_widths = [hidden_size >> level for level in range(num_levels + 1) for _ in range(num_blocks)]
        self.to_image = nn.Conv2d(features, out_channels, 3, padding=1)

    def forward(self, latents: Tensor, factors: Sequence[Tensor] = ()) -> Tensor:
        """Return the output; `factors`, (B, `block_widths[i]`) each, multiply what residual block i puts out (dropout)."""
        x, remaining = self.unflatten(latents), iter(factors)
        for layer in self.layers:
            x = layer(x)
            if factors and isinstance(layer, ResidualBlock):
                x = x * next(remaining)[:, :, None, None]
        return self.to_image(x)


class Encoder(nn.Module):
    """Images (B, `in_channels`, H, W) -> (B, `out_features`); the mirror of `Decoder`, with the same arguments and errors."""

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        height: int,
        width: int,
        hidden_size: int = 64,
        num_levels: int = 2,
        num_blocks: int = 1,
        dense: bool = False,
    ) -> None:
        super().__init__()
        sides = trunk_sides(height, width, hidden_size, num_levels)
        features = hidden_size >> num_levels
        self.from_image = nn.Conv2d(in_channels, features, 3, padding=1)
        layers = _blocks(features, num_blocks, dense)
        for level in reversed(range(num_levels)):
            features = hidden_size >> level
            layers += [nn.PixelUnshuffle(2), Pointwise(features * 2, features), *_blocks(features, num_blocks, dense)]
        self.layers = nn.Sequential(*layers)
        self.flatten = nn.Sequential(nn.Flatten(), nn.Linear(hidden_size * sides[0] * sides[1], out_features))

    def forward(self, images: Tensor) -> Tensor:
        return self.flatten(self.layers(self.from_image(images)))


def trunk_sides(height: int, width: int, hidden_size: int, num_levels: int) -> tuple[int, int]:
    """Return (H / 2^L, W / 2^L).

    Raises:
        DataError: a size is not a multiple of 2^L.
    """
    factor = 2**num_levels
    for name, value in (("height", height), ("width", width), ("hidden_size", hidden_size)):
        if value < factor or value % factor:
            raise DataError(
                f"{name} {value} is not a multiple of {factor} (num_levels {num_levels} halves it {num_levels} times); "
                f"{'change it' if name == 'hidden_size' else other_size(value, factor)}, or set a smaller num_levels"
            )
    return height // factor, width // factor


def _blocks(features: int, num_blocks: int, dense: bool) -> list[nn.Module]:
    return [ResidualBlock(features, dense=dense) for _ in range(num_blocks)]
