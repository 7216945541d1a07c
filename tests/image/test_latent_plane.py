"""Planes through latents: arcs keep their ends, corners are the images of the corner latents, what can be inverted comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from stages.common.images.grid import Grid, quantise
from stages.common.images.latent_plane import ABOUT, LATENTS, SIDE, corners_of, plane, show_plane, slerp
from stages.common.images.noise import seeded_generator
from stages.image.flow import report as flow_report
from stages.image.flow.model import Flow
from stages.image.flow_matching import report as matching_report
from stages.image.flow_matching.model import FlowMatching
from stages.image.gan import report as gan_report
from stages.image.gan.model import GAN
from stages.image.vae import report as vae_report
from stages.image.vae.model import VAE
from tests.harness import make_context
from tests.image.tiny_families import tiny_family

GRID = Grid(name="toy", license="cc0-1.0", levels=5, channels=1, height=8, width=8, classes=("a", "b"), sizes={}, sha256={})
FAMILIES = ("vae", "gan", "flow_coupling", "flow_autoregressive", "flow_matching")


def some_images(num: int = 4) -> Tensor:
    return torch.randint(GRID.levels, (num, *GRID.shape), generator=seeded_generator(1)).to(torch.uint8)


def read(folder: Path) -> tuple[Tensor, str]:
    with safe_open(folder / LATENTS, framework="pt") as file:
        return file.get_tensor("images"), file.metadata()[ABOUT]


def stirred(flow: Flow) -> Flow:
    """Return the flow with random last layers, so that it is far from the identity that it starts as."""
    for number, transform in enumerate(flow.network.transforms):
        torch.nn.init.normal_(transform.network.head.weight, std=0.3, generator=seeded_generator(number))
    return flow


def write_plane(name: str, folder: Path) -> None:
    """Write the plane of a family with random weights, as its report does."""
    context, family, images, generator = make_context(folder), tiny_family(name, GRID), some_images(), seeded_generator(5)
    if isinstance(family, VAE):
        vae_report.write_plane(context, family, images, family.posterior(images)[0])
    elif isinstance(family, GAN):
        gan_report.write_plane(context, family, generator)
    elif isinstance(family, Flow):
        latents = stirred(family).encode(images, generator)
        flow_report.write_plane(context, family, images, latents)
    elif isinstance(family, FlowMatching):
        matching_report.write_plane(context, family, images, generator)


@pytest.fixture(scope="module")
def planes(tmp_path_factory) -> dict[str, tuple[Tensor, str]]:
    root = tmp_path_factory.mktemp("planes")
    for name in FAMILIES:
        write_plane(name, root / name)
    return {name: read(root / name) for name in FAMILIES}


def test_an_arc_keeps_its_ends_bit_by_bit_and_the_length_of_latents():
    a, b = torch.nn.functional.normalize(torch.randn(2, 3, 8, 1, 1, generator=seeded_generator(1)), dim=2)
    arcs = slerp(a, b, torch.linspace(0, 1, 5))
    assert arcs.shape == (3, 5, 8, 1, 1)
    assert torch.equal(arcs[:, 0], a)
    assert torch.equal(arcs[:, -1], b)
    assert torch.allclose(arcs.flatten(2).norm(dim=2), torch.ones(3, 5), atol=1e-5)


def test_half_of_a_right_angle_is_halfway_between():
    start, stop = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    found = slerp(start, stop, torch.tensor([1 / 3, 0.5]))[0]
    torch.testing.assert_close(found[0], torch.tensor([3**0.5, 1.0, 0.0]))
    torch.testing.assert_close(found[1], torch.tensor([2.0, 2.0, 0.0]) / 2**0.5)


def test_latents_in_one_direction_or_opposite_are_joined_by_the_line():
    start = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    found = slerp(start, torch.tensor([[0.0, 6.0], [0.0, -2.0]]), torch.tensor([0.0, 0.25, 0.5, 1.0]))
    assert found.tolist() == [[[0, 2], [0, 3], [0, 4], [0, 6]], [[0, 2], [0, 1], [0, 0], [0, -2]]]


def test_a_plane_has_the_latents_in_its_corners_and_arcs_between_them():
    corners = torch.randn(4, 6, generator=seeded_generator(2))
    found = plane(corners)
    assert found.shape == (SIDE, SIDE, 6)
    assert torch.equal(corners_of(found), corners)
    shares = torch.linspace(0, 1, SIDE)
    torch.testing.assert_close(found[0], slerp(corners[:1], corners[1:2], shares)[0])  # from top left to top right
    torch.testing.assert_close(found[:, 0], slerp(corners[:1], corners[2:3], shares)[0])  # and down to bottom left


def test_the_file_holds_the_image_of_every_point(tmp_path):
    context, corners = make_context(tmp_path), torch.randn(4, *GRID.shape, generator=seeded_generator(2))
    show_plane(context, corners, lambda latents: quantise(latents, 5), levels=5, about="Corners: noise.")
    images, about = read(tmp_path)
    assert torch.equal(images, quantise(plane(corners), 5))
    assert about == "Corners: noise."
    assert (tmp_path / "figures/morph.png").stat().st_size > 0


def test_what_comes_back_of_the_corners_is_counted(tmp_path):
    corners = some_images().float()
    originals = some_images()
    originals[2, 0, 0, :3] = (originals[2, 0, 0, :3] + 1) % 5  # three values that the corners do not have

    def decode(latents: Tensor) -> Tensor:
        return latents.round().clamp(0, 4).to(torch.uint8)

    show_plane(make_context(tmp_path), corners, decode, levels=5, about="Corners.", originals=originals)
    assert read(tmp_path)[1] == "Corners. Of the 256 values of the four corners, 253 come back to their level."


def test_three_latents_give_no_plane(tmp_path):
    context = make_context(tmp_path)
    show_plane(context, torch.zeros(3, *GRID.shape), lambda latents: quantise(latents, 5), levels=5, about="Corners.")
    assert list(tmp_path.rglob("*.png")) == []
    assert not (tmp_path / LATENTS).exists()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_brings_a_plane_and_says_what_it_is(planes, name):
    images, about = planes[name]
    assert images.dtype == torch.uint8
    assert images.shape == (SIDE, SIDE, *GRID.shape)
    assert int(images.max()) < GRID.levels
    assert about.startswith("Corners: four ")
    assert ("come back" in about) == (name != "gan")


@pytest.mark.parametrize("name", ["flow_coupling", "flow_autoregressive"])
def test_a_flow_brings_the_test_images_back_exactly(planes, name):
    images, about = planes[name]
    assert torch.equal(corners_of(images), some_images())
    assert about.endswith("Of the 256 values of the four corners, 256 come back to their level.")


def test_the_corners_of_a_vae_are_its_means_of_the_test_images(planes):
    vae = tiny_family("vae", GRID)
    expected = vae.mean(vae.posterior(some_images())[0]).round().to(torch.uint8)
    assert torch.equal(corners_of(planes["vae"][0]), expected)


def test_the_corners_of_a_gan_are_the_images_of_seeded_latents(planes):
    gan = tiny_family("gan", GRID)
    assert torch.equal(corners_of(planes["gan"][0]), gan.decode(torch.randn(4, 4, generator=seeded_generator(5))))


def test_the_corners_of_flow_matching_are_images_of_noise_that_the_images_were_taken_to(planes):
    """The tiny network's field is steep nowhere, so that even three steps lose little."""
    assert (corners_of(planes["flow_matching"][0]) == some_images()).float().mean() > 0.95


def test_the_way_back_to_noise_undoes_the_way_to_images():
    """v = x + 4t does not commute with itself at other times: both the sign and the time must run backwards."""
    family = tiny_family("flow_matching", GRID)
    family.config = family.config.model_copy(update={"num_sample_steps": 40})
    family.field = lambda x, t: x + 4 * t
    images = some_images()
    noise = family.encode(images, seeded_generator(3))
    assert torch.equal(family.decode(noise), images)
    assert float(noise.mean()) < -1  # of x1 = e·(x0 + 4) - 8: x0 lies far below where images are


@pytest.mark.parametrize("name", ["vae_of_classes", "flow_of_classes", "flow_matching_of_classes"])
def test_one_space_for_each_class_gives_no_plane(tmp_path, name):
    tiny_family(name, GRID).report(make_context(tmp_path), some_images(), seeded_generator(5), {"step": [1.0, 2.0]})
    assert not (tmp_path / LATENTS).exists()
