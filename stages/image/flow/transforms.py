"""What a flow is made of: transforms of the unit cube onto itself that can be inverted and whose volume change is known.

Legend: B images, T patches, F values of a patch, D = T·F values of an image.

A transform of both kinds puts every value through a monotone spline, whose knots a network reads off *other* values. As no
value depends on itself through a circle, the Jacobian is triangular and its determinant the product of the slopes:
    log |det J| = Σ log slope                                             (Dinh et al., Real NVP, arXiv 1605.08803, eq. 6)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import DataError
from stages.common.images.noise import BatchNoise
from stages.image.flow.networks import Cache, CausalTransformer, ConvolutionalNetwork
from stages.image.flow.splines import inverse_spline, num_parameters, spline


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one transform.

    Attributes:
        rows, columns: of patches; T is their product.
        patch_values: F.
        num_bins: of each spline.
        hidden_size, num_layers, num_heads: of the network; a convolutional one has no heads.
        dropout: share of features that a training step drops.
        num_classes: of a class-conditional flow, else 0.
    """

    rows: int
    columns: int
    patch_values: int
    num_bins: int
    hidden_size: int
    num_layers: int
    num_heads: int
    dropout: float
    num_classes: int = 0

    @property
    def num_patches(self) -> int:
        """T."""
        return self.rows * self.columns


class Transform(nn.Module, ABC):
    """A bijection of patches (B, T, F) with values in [0, 1]; `number` is its place in the flow, from 0."""

    @abstractmethod
    def __init__(self, sizes: Sizes, number: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, values_BTF: Tensor, noise: BatchNoise | None = None, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Take patches a step towards the latents; return them and `log_abs_det_jacobian` (B,).

        `noise` is for dropout, `labels` int64 (B,) for a class-conditional flow.
        """

    @abstractmethod
    def inverse(self, values_BTF: Tensor, labels: Tensor | None = None) -> Tensor:
        """Take patches a step back towards the data."""

    @staticmethod
    @abstractmethod
    def num_evaluations(num_patches: int) -> int:
        """Return how often `inverse` calls the network."""


class CouplingTransform(Transform):
    """Some values of each patch stay as they are and say how all the others are changed: one pass in either direction.

    Raises:
        DataError: a patch has one value only.
    """

    def __init__(self, sizes: Sizes, number: int) -> None:
        super().__init__(sizes, number)
        if sizes.patch_values < 2:
            raise DataError(
                "patch_size is 1 and the images have 1 channel: a patch of one value has no part that stays and part that "
                "changes; set patch_size to 2 or more, or architecture to autoregressive"
            )
        self._kept, self._changed = halves(sizes.patch_values, number)
        self.network = ConvolutionalNetwork(
            sizes.rows,
            sizes.columns,
            in_size=len(self._kept),
            out_size=len(self._changed) * num_parameters(sizes.num_bins),
            hidden_size=sizes.hidden_size,
            num_layers=sizes.num_layers,
            dropout=sizes.dropout,
            num_classes=sizes.num_classes,
        )

    def forward(self, values_BTF: Tensor, noise: BatchNoise | None = None, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform`.  Real NVP, eq. 4 and 5, with a spline for the affine map."""
        changed, log_slopes = spline(values_BTF[..., self._changed], self._raw(values_BTF, noise, labels))
        return self._with(values_BTF, changed), log_slopes.flatten(1).sum(1)

    def inverse(self, values_BTF: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Transform`: what stayed is still there, so the very same spline is known.  Real NVP, eq. 8."""
        return self._with(values_BTF, inverse_spline(values_BTF[..., self._changed], self._raw(values_BTF, None, labels)))

    @staticmethod
    def num_evaluations(num_patches: int) -> int:  # noqa: ARG004
        """See `Transform`."""
        return 1

    def _raw(self, values_BTF: Tensor, noise: BatchNoise | None, labels: Tensor | None) -> Tensor:
        outputs: Tensor = self.network(2 * values_BTF[..., self._kept] - 1, noise, labels)
        return outputs.unflatten(-1, (len(self._changed), -1))

    def _with(self, values_BTF: Tensor, changed: Tensor) -> Tensor:
        return values_BTF.index_copy(-1, torch.tensor(self._changed, device=changed.device), changed)


def halves(num_values: int, number: int) -> tuple[list[int], list[int]]:
    """Return which values of a patch stay and which change in transform `number`.

    Value m goes by the parity of the bits that m and a mask share. The mask changes with every pair of transforms, and the
    second of a pair swaps the two sets. So a 2x2 patch is split like a checkerboard, then by rows, then by columns. Glow
    turns the channels by a learnt matrix between two steps instead; that would leave the unit cube.
    """
    masks = 2 ** (num_values - 1).bit_length() - 1
    mask = masks - number // 2 % masks
    odd = [(m & mask).bit_count() % 2 for m in range(num_values)]
    swap = number % 2
    return [m for m in range(num_values) if odd[m] == swap], [m for m in range(num_values) if odd[m] != swap]


class CausalTransform(Transform):
    """Patch t is changed as the patches before it say; every second transform reads from the last patch to the first."""

    def __init__(self, sizes: Sizes, number: int) -> None:
        super().__init__(sizes, number)
        if sizes.hidden_size % sizes.num_heads:
            raise DataError(
                f"hidden_size {sizes.hidden_size} is not a multiple of num_heads {sizes.num_heads}; change one of them"
            )
        self._backwards = number % 2 == 1
        self.network = CausalTransformer(
            sizes.num_patches,
            in_size=sizes.patch_values,
            out_size=sizes.patch_values * num_parameters(sizes.num_bins),
            hidden_size=sizes.hidden_size,
            num_layers=sizes.num_layers,
            num_heads=sizes.num_heads,
            dropout=sizes.dropout,
            num_classes=sizes.num_classes,
        )

    def forward(self, values_BTF: Tensor, noise: BatchNoise | None = None, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform`: all patches at once.  TarFlow, section 2.2, with a spline for the affine map."""
        values_BTF = self._ordered(values_BTF)
        changed, log_slopes = spline(values_BTF, self._raw(self.network(2 * values_BTF - 1, noise, labels), values_BTF))
        return self._ordered(changed), log_slopes.flatten(1).sum(1)

    def inverse(self, values_BTF: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Transform`: one patch after the other, for the spline of a patch is known once those before it are found."""
        cache: Cache | None = None
        found: list[Tensor] = []
        for position, patch_BF in enumerate(self._ordered(values_BTF).unbind(1)):
            previous = 2 * found[-1] - 1 if found else None
            outputs, cache = self.network.step(previous, len(patch_BF), position, cache, labels)
            found.append(inverse_spline(patch_BF, self._raw(outputs, patch_BF)))
        return self._ordered(torch.stack(found, dim=1))

    @staticmethod
    def num_evaluations(num_patches: int) -> int:
        """See `Transform`."""
        return num_patches

    def _ordered(self, values_BTF: Tensor) -> Tensor:
        return values_BTF.flip(1) if self._backwards else values_BTF

    @staticmethod
    def _raw(outputs: Tensor, values: Tensor) -> Tensor:
        return outputs.unflatten(-1, (values.shape[-1], -1))
