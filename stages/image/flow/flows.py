"""Two flows as diffusers models: exact densities of images, one to sample in one pass, one patch by patch.

Legend: B images, C channels, H height, W width, K levels; T patches, F = C·patch_size² values of a patch, D = T·F.

Forward is data -> latent, everywhere in this stage. The latents lie in the unit cube and have the uniform density as base,
so that the density of an image is the volume change alone:
    log p(y) = log base(f(y)) + log |det df/dy| = log |det df/dy|       (Rezende and Mohamed, arXiv 1505.05770, eq. 5)
A standard normal base would say the same: `normal_scores` sends each latent through the normal quantile function.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import DataError
from stages.common.images.grid import other_size
from stages.common.images.noise import BatchNoise
from stages.image.flow.transforms import CausalTransform, CouplingTransform, Sizes, Transform

TAIL = 1e-6
"""Latents are kept this far from 0 and 1 before the normal quantile function; it is infinite there."""


class ImageFlow(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A density over images y, float (B, C, H, W) in [-1, 1], the scale of `dequantise`.

    Args:
        channels, height, width: of the images.
        levels: K of the grid that samples are brought back to.
        patch_size: side of the squares that an image is cut into; it divides both sides of the image.
        num_transforms: transforms, one after the other.
        num_bins: bins of each spline.
        hidden_size, num_layers, num_heads: of the network in each transform; a coupling flow's have no heads.
        dropout: share of features that a training step drops.
        num_classes: of a class-conditional flow, which has a density for each class; 0: one density.

    Raises:
        DataError: sizes that do not fit together.
    """

    kind: ClassVar[type[Transform]]
    """The transforms that this flow is made of."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        channels: int,
        height: int,
        width: int,
        levels: int,  # noqa: ARG002 - for those who load the model: it is in its config
        patch_size: int,
        num_transforms: int,
        num_bins: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        _check_sides(height, width, patch_size)
        self._patch_size = patch_size
        self.latent_shape = (channels, height, width)
        self._sizes = Sizes(
            rows=height // patch_size,
            columns=width // patch_size,
            patch_values=channels * patch_size**2,
            num_bins=num_bins,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            num_classes=num_classes,
        )
        self.transforms = nn.ModuleList(self.kind(self._sizes, number) for number in range(num_transforms))

    @property
    def num_function_evaluations(self) -> int:
        """How often every transform's network is called for one sample."""
        return self.kind.num_evaluations(self._sizes.num_patches)

    def forward(self, images: Tensor, noise: BatchNoise | None = None, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return latents (B, C, H, W) in [0, 1] and `log_abs_det_jacobian` (B,), in nats.

        `noise` is for dropout, `labels` int64 (B,) for a class-conditional flow.
        """
        values = self._patches((images + 1) / 2)
        # The step from [-1, 1] to [0, 1] halves every side.
        log_abs_det_jacobian = images.new_full((len(images),), -math.log(2) * images[0].numel())
        for transform in self.transforms:
            values, change = transform(values, noise, labels)
            log_abs_det_jacobian = log_abs_det_jacobian + change
        return self._image(values), log_abs_det_jacobian

    def inverse(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) in [-1, 1] that `forward` takes to `latents`."""
        return self.inverse_steps(latents, labels)[-1]

    def inverse_steps(self, latents: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """Return `latents` on the scale of images, then what each transform's inverse makes of them; the last are the images."""
        values = self._patches(latents)
        steps = [values]
        for transform in reversed(self.transforms):
            values = transform.inverse(values, labels)
            steps.append(values)
        return [2 * self._image(step) - 1 for step in steps]

    def log_prob(self, images: Tensor, noise: BatchNoise | None = None, labels: Tensor | None = None) -> Tensor:
        """Return the logarithm of the density (B,), in nats; minus infinity where a value is outside [-1, 1].

        With `noise`, of a training step, features are dropped on the way.
        """
        _, log_abs_det_jacobian = self(images, noise, labels)
        inside = (images.abs() <= 1).flatten(1).all(1)
        return log_abs_det_jacobian.where(inside, -torch.inf)

    def _patches(self, values_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, T, F), patches in reading order."""
        return functional.pixel_unshuffle(values_BCHW, self._patch_size).flatten(2).transpose(1, 2)

    def _image(self, values_BTF: Tensor) -> Tensor:
        """The inverse of `_patches`."""
        return functional.pixel_shuffle(values_BTF.transpose(1, 2).unflatten(2, (self._sizes.rows, -1)), self._patch_size)


class CouplingFlow(ImageFlow):
    """Coupling transforms: data -> latent and latent -> data take one pass each (Glow, arXiv 1807.03039; splines for affine)."""

    kind = CouplingTransform


class AutoregressiveFlow(ImageFlow):
    """Causal transforms: one pass forward, patch by patch back (TarFlow, arXiv 2412.06329; splines for affine)."""

    kind = CausalTransform


def normal_scores(latents: Tensor) -> Tensor:
    """Return latents of the uniform base as latents of a standard normal base; cut at about 4.8 standard deviations."""
    return torch.special.ndtri(latents.clamp(TAIL, 1 - TAIL))


def from_normal_scores(scores: Tensor) -> Tensor:
    """Return latents of a standard normal base as latents of the uniform base, in [0, 1]."""
    return torch.special.ndtr(scores)


def _check_sides(height: int, width: int, patch_size: int) -> None:
    for name, value in (("height", height), ("width", width)):
        if value % patch_size:
            raise DataError(
                f"{name} {value} is not a multiple of patch_size {patch_size}: patches would overlap or leave pixels out; "
                f"set a patch_size that divides it, or {other_size(value, patch_size)}"
            )
