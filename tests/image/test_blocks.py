"""Small networks shared by families: shapes, gradients, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import DataError
from stages.common.images.blocks import Decoder, Encoder, ResidualBlock
from stages.common.images.noise import seeded_generator


def randomised(module):
    """Give every parameter a value, so that no zero at the start hides a path."""
    generator = seeded_generator(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize(("height", "width", "num_levels"), [(8, 8, 2), (16, 16, 2), (32, 32, 3), (8, 12, 1)])
def test_decoder_and_encoder_have_the_stated_shapes(height, width, num_levels):
    sizes = {"height": height, "width": width, "hidden_size": 16, "num_levels": num_levels, "num_blocks": 2}
    images = Decoder(5, 3, **sizes)(torch.zeros(2, 5))
    assert images.shape == (2, 3, height, width)
    assert Encoder(3, 7, **sizes)(images).shape == (2, 7)


def test_a_fresh_block_is_the_identity_and_a_trained_one_is_not():
    block = ResidualBlock(8)
    x = torch.randn(2, 8, 4, 4, generator=seeded_generator(1))
    assert torch.equal(block(x), x)
    assert not torch.allclose(randomised(block)(x), x)


@pytest.mark.parametrize("make", [lambda: Decoder(4, 2, height=8, width=8), lambda: Encoder(2, 4, height=8, width=8)])
def test_gradient_reaches_every_parameter(make):
    network = randomised(make())
    shape = (3, 4) if isinstance(network, Decoder) else (3, 2, 8, 8)
    network(torch.randn(*shape, generator=seeded_generator(2))).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_no_image_of_a_batch_sees_another():
    network = randomised(Encoder(1, 3, height=8, width=8, hidden_size=16))
    images = torch.randn(4, 1, 8, 8, generator=seeded_generator(3))
    changed = images.clone()
    changed[0] += 1
    assert torch.allclose(network(images)[1:], network(changed)[1:], atol=1e-6)
    assert not torch.allclose(network(images)[0], network(changed)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"height": 10, "width": 8}, "height 10 is not a multiple of 4"),
        ({"height": 8, "width": 6}, "width 6 is not a multiple of 4"),
        ({"height": 8, "width": 8, "hidden_size": 2}, "hidden_size 2 is not a multiple of 4"),
    ],
)
def test_sizes_that_cannot_be_halved_are_refused_by_name(sizes, named):
    with pytest.raises(DataError, match=named):
        Decoder(4, 2, **sizes)
    with pytest.raises(DataError, match=named):
        Encoder(1, 4, **sizes)


def test_dense_blocks_mix_all_feature_maps_and_grouped_ones_only_those_of_a_group():
    x = torch.randn(1, 32, 4, 4, generator=seeded_generator(1))
    for dense, reached in ((True, 32), (False, 16)):
        block = randomised(ResidualBlock(32, dense=dense))
        hidden = torch.zeros(1, block.mix.in_channels, 4, 4).requires_grad_()
        (gradient,) = torch.autograd.grad(block.mix(hidden)[:, 0].sum(), hidden)
        assert int((gradient.abs().sum(dim=(0, 2, 3)) > 0).sum()) == reached
        assert block(x).shape == x.shape


def test_factors_of_one_change_nothing_and_a_factor_of_zero_silences_its_block():
    decoder = randomised(Decoder(3, 2, height=8, width=8, hidden_size=16, num_blocks=2))
    latents = torch.randn(4, 3, generator=seeded_generator(1))
    ones = [torch.ones(4, width) for width in decoder.block_widths]
    assert decoder.block_widths == [16, 16, 8, 8, 4, 4]
    assert torch.equal(decoder(latents, ones), decoder(latents))
    silent = [*ones[:-1], torch.zeros(4, 4)]
    assert torch.allclose(decoder(latents, silent), decoder.to_image(torch.zeros(4, 4, 8, 8)))
