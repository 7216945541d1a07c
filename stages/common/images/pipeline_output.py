"""What our own pipelines give back, in the form of diffusers' pipelines."""

from __future__ import annotations

from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor

from pipeline.errors import DataError

OUTPUT_TYPES = ("pil", "np", "pt")


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
