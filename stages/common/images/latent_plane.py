"""A plane through a latent space: four latents in its corners, arcs between them, and the image of every point.

Legend: B pairs, S shares, A x B points of a plane, C channels, H height, W width; * the shape of one latent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.contract import Context
from stages.common.images.pictures import sheet

LATENTS = "latents.safetensors"
"""The images of a plane: `images`, uint8 (A, B, C, H, W); the file's metadata say under ABOUT what they are."""
ABOUT = "about"
NUM_CORNERS = 4
SIDE = 9
"""Points along a side; an odd number, so that one lies in the middle."""


def slerp(start: Tensor, stop: Tensor, shares: Tensor) -> Tensor:
    """Return points on the arcs from `start` to `stop`, each (B, *), as (B, S, *); `shares` (S,) run from 0 to 1.

    A straight line between two latents passes too near to zero, where N(0, 1) in many dimensions has no mass; an arc does
    not (White, arXiv 1609.04468, section 2.1). Ends in one direction, or opposite, are joined by a line.
    """
    a, b = start.flatten(1), stop.flatten(1)
    angle = torch.arccos(torch.cosine_similarity(a, b, dim=1).clamp(-1, 1))[:, None]
    sine = torch.sin(angle)
    on_line = sine.abs() < 1e-4
    # Divided before they are multiplied, the weights at the ends are 1 and 0 exactly, and the ends are kept bit by bit.
    first = torch.where(on_line, 1 - shares, torch.sin((1 - shares) * angle) / sine)
    last = torch.where(on_line, shares, torch.sin(shares * angle) / sine)
    return (first[..., None] * a[:, None] + last[..., None] * b[:, None]).unflatten(2, start.shape[1:])


def plane(corners: Tensor) -> Tensor:
    """Return latents (SIDE, SIDE, *) between `corners` (4, *): top left, top right, bottom left, bottom right."""
    shares = torch.linspace(0, 1, SIDE)
    left, right = slerp(corners[:2], corners[2:], shares)
    return slerp(left, right, shares)


def corners_of(images: Tensor) -> Tensor:
    """Return the images (4, C, H, W) in the corners of a plane, uint8 (A, B, C, H, W), in the order of `plane`."""
    return torch.cat([images[0, [0, -1]], images[-1, [0, -1]]])


def show_plane(
    context: Context,
    corners: Tensor,
    decode: Callable[[Tensor], Tensor],
    *,
    levels: int,
    about: str,
    originals: Tensor | None = None,
) -> None:
    """Write the file LATENTS and a figure of the plane between four latents; with fewer latents there is no plane.

    Args:
        context: of the stage.
        corners: latents (4, *), as `plane` takes them, or fewer.
        decode: latents (N, *) -> images on the grid, uint8 (N, C, H, W).
        levels: K of the grid.
        about: sentences that say what the corners are and what the plane teaches.
        originals: the images that the corners were encoded from, uint8 (4, C, H, W); what comes back of them is counted.
    """
    if len(corners) < NUM_CORNERS:
        return
    images = decode(plane(corners).flatten(0, 1)).unflatten(0, (SIDE, SIDE))
    if originals is not None:
        same = int((corners_of(images) == originals).sum())
        about = f"{about} Of the {originals.numel():,} values of the four corners, {same:,} come back to their level."
    save_file({"images": images.contiguous()}, context.directory / LATENTS, metadata={ABOUT: about})
    path = sheet(images.flatten(0, 1), levels, SIDE, context.figures / "morph.png")
    context.section.figure(path, f"A plane through the latents, and the image of every point. {about}")
