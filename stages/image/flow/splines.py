"""Monotone splines of the interval [0, 1]: the transform of one value, in both flows.

Legend: ... any leading shape; N bins; P = 3N + 1 raw numbers that a network gives for each spline.

A spline joins N rational-quadratic pieces whose values and slopes agree at the knots (Durkan et al., Neural Spline Flows,
arXiv 1906.04032, section 3.1). It can turn any density of one value into any other, with steps as steep as a bin is narrow:
images on a grid need that, for a dequantised level is a box, and the box of level 0 may hold half of all values. An affine
transform would have to bend boxes into a bell. Value, slope and inverse are in closed form. Raw zeros give the identity.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from stages.common.images.sums import running_sum

LEAST_SIZE = 1e-3
"""Smallest width and height of a bin."""
LEAST_SLOPE = 1e-3
"""Smallest slope at a knot."""


class _Piece(NamedTuple):
    """The bin that each value lies in; all fields (...)."""

    left: Tensor
    width: Tensor
    bottom: Tensor
    height: Tensor
    left_slope: Tensor
    right_slope: Tensor


def num_parameters(num_bins: int) -> int:
    """Return P, the raw numbers of one spline: a width and a height for each bin, a slope for each knot."""
    return 3 * num_bins + 1


def spline(values: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the transformed values and the logarithms of the slopes there, both (...).

    Args:
        values: float (...), in [0, 1].
        raw: float (..., P).
    """
    piece = _pieces(values, raw, inverse=False)
    xi = ((values - piece.left) / piece.width).clamp(0, 1)
    slope = piece.height / piece.width
    between = xi * (1 - xi)
    denominator = slope + (piece.left_slope + piece.right_slope - 2 * slope) * between
    # eq. 4
    transformed = piece.bottom + piece.height * (slope * xi * xi + piece.left_slope * between) / denominator
    # eq. 5
    numerator = piece.right_slope * xi * xi + 2 * slope * between + piece.left_slope * (1 - xi).square()
    return transformed.clamp(0, 1), 2 * slope.log() + numerator.log() - 2 * denominator.log()


def inverse_spline(transformed: Tensor, raw: Tensor) -> Tensor:
    """Return the values in [0, 1] that `spline` takes to `transformed`; shapes as there."""
    piece = _pieces(transformed, raw, inverse=True)
    slope = piece.height / piece.width
    rise = transformed - piece.bottom
    excess = rise * (piece.left_slope + piece.right_slope - 2 * slope)
    # The root of a xi^2 + b xi + c = 0 that lies in [0, 1], in the form that subtracts no equal numbers.  appendix A
    a = piece.height * (slope - piece.left_slope) + excess
    b = piece.height * piece.left_slope - excess
    c = -slope * rise
    root = (b.square() - 4 * a * c).clamp_min(0).sqrt()
    xi = 2 * c / (-b - root)
    return (piece.left + xi.clamp(0, 1) * piece.width).clamp(0, 1)


def _pieces(values: Tensor, raw: Tensor, *, inverse: bool) -> _Piece:
    num_bins = (raw.shape[-1] - 1) // 3
    widths, heights, slopes = raw.to(values.dtype).split([num_bins, num_bins, num_bins + 1], dim=-1)
    left, widths = _knots(widths)
    bottom, heights = _knots(heights)
    # softplus(raw + ln(e - 1)) is 1 at raw = 0
    slopes = LEAST_SLOPE + (1 - LEAST_SLOPE) * functional.softplus(slopes + math.log(math.e - 1))
    edges = bottom if inverse else left
    index = (values.unsqueeze(-1) >= edges[..., 1:]).sum(-1, keepdim=True)
    fields = (left, widths, bottom, heights, slopes[..., :-1], slopes[..., 1:])
    return _Piece(*(field.gather(-1, index).squeeze(-1) for field in fields))


def _knots(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the bins begin and how large they are, both (..., N); the sizes are positive and sum to 1."""
    sizes = LEAST_SIZE + (1 - LEAST_SIZE * raw.shape[-1]) * raw.softmax(-1)
    return functional.pad(running_sum(sizes, -1)[..., :-1], (1, 0)), sizes
