"""Sample a trained flow the way diffusers' pipelines are called: `FlowPipeline.from_pretrained(directory)(batch_size=4)`.

The class of the flow is named in `model_index.json` by its module, so it loads wherever this checkout is on the path.
"""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor

from pipeline.errors import DataError
from stages.common.images.grid import quantise
from stages.common.images.pipeline_output import Generators, check_output_type, drawn, pipeline_output
from stages.image.flow.flows import ImageFlow


class FlowPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Images from a flow: latents of the base, taken back through the transforms; no scheduler."""

    model_cpu_offload_seq = "flow"

    def __init__(self, flow: ImageFlow) -> None:
        super().__init__()
        self.register_modules(flow=flow)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        num_images: int | None = None,
        class_labels: int | list[int] | Tensor | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Draw images.

        Args:
            batch_size: number of images; 1, or as many as there are `class_labels`.
            generator: a CPU generator for the latents, so that the same seed gives the same images on every device; or a
                list, one for each image.
            output_type: `pil` (a list of images), `np` (float, B, H, W, C) or `pt` (float, B, C, H, W); floats are in [0, 1].
            return_dict: return an object with `images`, else a tuple.
            num_images: another name of `batch_size`.
            class_labels: class of each image, or one for all, for a class-conditional flow, which needs them.

        Raises:
            DataError: another output type, no image, a list of generators of another length, or labels that the flow does not
                know.
        """
        check_output_type(output_type)
        levels = self.flow.config.levels
        number = batch_size if num_images is None else num_images
        labels = self._labels(class_labels, number)
        number = number if labels is None else len(labels)
        latents = drawn(torch.rand, number, self.flow.latent_shape, generator)
        values = self.flow.inverse(latents.to(self._execution_device, self.flow.dtype), labels)
        images = quantise(values.float(), levels)
        self.maybe_free_model_hooks()
        return pipeline_output(images, levels, output_type, return_dict=return_dict)

    def _labels(self, given: int | list[int] | Tensor | None, number: int) -> Tensor | None:
        """Return the class of each image, int64 (B,), on the flow's device; None for a flow without classes."""
        num_classes = self.flow.config.num_classes
        if (given is None) != (num_classes == 0):
            raise DataError(
                f"class_labels is {given}: this flow knows {num_classes} classes; give labels only where there are some"
            )
        if given is None:
            return None
        labels = torch.as_tensor(given, dtype=torch.int64, device=self._execution_device).flatten()
        if len(labels) == 1:
            labels = labels.expand(number)
        if number not in (1, len(labels)):
            raise DataError(f"class_labels has {len(labels)} labels for {number} images; give one for each, or one for all")
        if wrong := [label for label in labels.tolist() if not 0 <= label < num_classes]:
            raise DataError(f"class_labels has {wrong[0]}; this flow knows 0 to {num_classes - 1}")
        return labels
