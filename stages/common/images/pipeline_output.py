"""What our own pipelines take and give back, in the form of diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor

from pipeline.errors import DataError

OUTPUT_TYPES = ("pil", "np", "pt")
Generators = torch.Generator | list[torch.Generator] | tuple[torch.Generator, ...] | None
"""Of a pipeline's call: one for all images, or one for each, so that an image does not depend on those beside it."""


def check_output_type(output_type: str) -> None:
    """Raise DataError unless `output_type` is one of OUTPUT_TYPES; call it before anything is drawn."""
    if output_type not in OUTPUT_TYPES:
        raise DataError(f"output_type is {output_type!r}; use one of {', '.join(OUTPUT_TYPES)}")


def pipeline_output(images: Tensor, levels: int, output_type: str, *, return_dict: bool) -> ImagePipelineOutput | tuple:
    """Return images of a grid, uint8 (B, C, H, W), as `output_type`, in an object with `images` or in a tuple.

    `pil`: a list of images; `np`: float (B, H, W, C); `pt`: float (B, C, H, W); floats are in [0, 1].
    """
    floats = images.float() / (levels - 1)
    shown = floats if output_type == "pt" else floats.cpu().permute(0, 2, 3, 1).numpy()
    if output_type == "pil":
        shown = DiffusionPipeline.numpy_to_pil(shown)
    return ImagePipelineOutput(images=shown) if return_dict else (shown,)


def drawn(draw: Callable[..., Tensor], num_images: int, shape: tuple[int, ...], generator: Generators) -> Tensor:
    """Return latents (num_images, *shape) of `draw`, which is torch.randn or torch.rand, on the CPU.

    Raises:
        DataError: no image, or a list of generators of another length.
    """
    if num_images < 1:
        raise DataError(f"{num_images} images were asked for; ask for at least 1")
    if not isinstance(generator, list | tuple):
        return draw(num_images, *shape, generator=generator)
    if len(generator) != num_images:
        raise DataError(
            f"generator is a list of {len(generator)} for {num_images} images; give one for each image, or one for all"
        )
    return torch.cat([draw(1, *shape, generator=one) for one in generator])
