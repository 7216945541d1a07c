"""Sample a trained generator the way diffusers' pipelines are called: `GANPipeline.from_pretrained(directory)(batch_size=4)`.

The class of the generator is named in `model_index.json` by its module, so it loads wherever this checkout is on the path.
"""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from stages.common.images.grid import quantise
from stages.common.images.pipeline_output import Generators, check_output_type, drawn, pipeline_output
from stages.image.gan.networks import Generator


class GANPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Images from a generator: one call of the network, no scheduler."""

    model_cpu_offload_seq = "generator"

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.register_modules(generator=generator)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        num_images: int | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Draw images.

        Args:
            batch_size: number of images.
            generator: a CPU generator for the latents, so that the same seed gives the same images on every device; or a
                list, one for each image.
            output_type: `pil` (a list of images), `np` (float, B, H, W, C) or `pt` (float, B, C, H, W); floats are in [0, 1].
            return_dict: return an object with `images`, else a tuple.
            num_images: another name of `batch_size`.

        Raises:
            DataError: another output type, no image, or a list of generators of another length.
        """
        check_output_type(output_type)
        config = self.generator.config
        number = batch_size if num_images is None else num_images
        latents = drawn(torch.randn, number, (config.latent_size,), generator)
        values = self.generator(latents.to(self._execution_device, self.generator.dtype))
        images = quantise(values.float(), config.levels)
        self.maybe_free_model_hooks()
        return pipeline_output(images, config.levels, output_type, return_dict=return_dict)
