"""The U-Net of flow matching and diffusion: patches, sizes that fit, groups."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import DataError
from stages.common.images import unet
from stages.common.images.grid import Grid
from stages.common.images.unet_config import UNetConfig


def grid(height, width, channels=1):
    return Grid(
        name="toy",
        license="cc0-1.0",
        levels=4,
        channels=channels,
        height=height,
        width=width,
        classes=(),
        sizes={},
        sha256={},
    )


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_patches_go_back_to_the_same_image(patch_size):
    images = torch.randn(2, 3, 8, 16)
    patches = unet.to_patches(images, patch_size)
    assert patches.shape == (2, 3 * patch_size**2, 8 // patch_size, 16 // patch_size)
    assert torch.equal(unet.from_patches(patches, patch_size), images)


@pytest.mark.parametrize(("side", "patch_size"), [(8, 1), (14, 1), (16, 2), (28, 2), (32, 2), (64, 2), (34, 1)])
def test_without_a_patch_size_larger_images_get_patches_that_fit(side, patch_size):
    assert unet.choose_patch_size(UNetConfig(), height=side, width=side) == patch_size


def test_a_patch_size_that_is_named_is_kept():
    assert unet.choose_patch_size(UNetConfig(patch_size=1), height=64, width=64) == 1


def test_a_patch_size_that_does_not_fit_is_refused_with_those_that_do():
    with pytest.raises(DataError, match=r"8x8 pixels do not fit patch_size 3 .* set patch_size to one of \[1, 2, 4\]"):
        unet.choose_patch_size(UNetConfig(patch_size=3), height=8, width=8)


def test_sides_that_cannot_be_halved_are_refused_and_never_padded():
    with pytest.raises(
        DataError, match=r"7x8 .* multiples of patch_size x 2; bring the images to another size in the dataset stage"
    ):
        unet.build_unet(UNetConfig(), grid(7, 8))


def test_one_resolution_needs_no_halving():
    network = unet.build_unet(UNetConfig(block_out_channels=(8,)), grid(7, 5))
    assert network(torch.zeros(1, 1, 7, 5), torch.tensor(3.0)).sample.shape == (1, 1, 7, 5)


@pytest.mark.parametrize("attention", [False, True])
def test_the_network_keeps_the_shape_of_wide_colour_images_in_patches(attention):
    network = unet.build_unet(UNetConfig(block_out_channels=(4, 8), patch_size=2, attention=attention), grid(8, 16, channels=3))
    assert network.config.sample_size == (4, 8)
    x = torch.randn(2, 12, 4, 8)
    assert network(x, torch.tensor([1.0, 999.0])).sample.shape == x.shape


@pytest.mark.parametrize(("channels", "groups"), [((16, 32), 8), ((8, 16), 4), ((128, 256), 32), ((24, 36), 6), ((3, 5), 1)])
def test_groups_divide_all_channels_and_hold_two_or_more(channels, groups):
    assert unet.num_groups(channels) == groups


def test_weights_follow_from_the_seed_alone():
    def weights(seed):
        torch.rand(1)  # moves the global generator
        return unet.build_unet(UNetConfig(block_out_channels=(4,), seed=seed), grid(4, 4)).conv_in.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_building_a_network_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    unet.build_unet(UNetConfig(block_out_channels=(4,)), grid(4, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
