"""The pipelines of our own classes are called as those of diffusers are."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import DataError
from stages.common.images.noise import seeded_generator
from stages.image.flow.config import Config as FlowConfig
from stages.image.flow.model import Flow
from stages.image.flow.pipeline import FlowPipeline
from stages.image.gan.config import Config as GANConfig
from stages.image.gan.model import GAN
from stages.image.gan.pipeline import GANPipeline
from tests.image.test_class_conditional import TINY


def gan():
    config = GANConfig.parse({"num_levels": 1, "generator_size": 4, "discriminator_size": 4}, where="gan")
    return GANPipeline(GAN(TINY, config).generator)


def flow():
    config = FlowConfig.parse({"hidden_size": 4, "num_transforms": 1}, where="flow")
    return FlowPipeline(flow=Flow(TINY, config).network)


@pytest.fixture(params=[gan, flow])
def pipeline(request):
    torch.manual_seed(0)
    return request.param()


def test_the_number_of_images_has_two_names(pipeline):
    for name in ("num_images", "batch_size"):
        assert len(pipeline(**{name: 3}, generator=seeded_generator(1)).images) == 3
    assert len(pipeline().images) == 1


def test_with_a_generator_each_an_image_does_not_depend_on_those_beside_it(pipeline):
    def images(*seeds):
        return pipeline(len(seeds), [seeded_generator(seed) for seed in seeds], output_type="pt").images

    assert torch.equal(images(5, 6)[1], images(6)[0])


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"num_images": 0}, "0 images were asked for"),
        ({"batch_size": -1}, "-1 images were asked for"),
        ({"batch_size": 3, "generator": [seeded_generator(1)]}, "a list of 1 for 3 images"),
    ],
)
def test_a_number_that_cannot_be_drawn_is_refused(pipeline, values, named):
    with pytest.raises(DataError, match=named):
        pipeline(**values)
