"""The networks of the larger recipes have the sizes that are meant: a default that halves a network unseen is a straw man."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.graph import build_graph
from pipeline.recipe import load_recipe
from stages.common.images.grid import Grid
from stages.common.images.ledger import FlopLedger
from stages.common.images.noise import BatchNoise, seeded_generator
from stages.image.diffusion.model import Diffusion
from stages.image.flow.model import Flow
from stages.image.flow_matching.model import FlowMatching
from stages.image.gan.model import GAN
from stages.image.vae.model import VAE

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MODELS = {"vae": VAE, "gan": GAN, "flow": Flow, "flow_matching": FlowMatching, "diffusion": Diffusion}
GRIDS = {"images_fashion": (1, 16), "images_gpu": (3, 32)}
"""Recipe -> channels and sides of its images."""

SIZES = {
    ("images_fashion", "vae"): {"vae": (122_714, 0.0063)},
    ("images_fashion", "gan"): {"discriminator": (24_985, 0.0169), "generator": (98_689, 0.0116)},
    ("images_fashion", "flow_coupling"): {"flow": (118_280, 0.0135)},
    ("images_fashion", "flow_autoregressive"): {"flow": (146_512, 0.0199)},
    ("images_fashion", "flow_matching"): {"velocity": (358_924, 0.0171)},
    ("images_fashion", "diffusion"): {"denoiser": (363_020, 0.0171)},
    ("images_gpu", "vae"): {"vae": (30_696_614, 2.339)},
    ("images_gpu", "vae_kl"): {"vae": (31_567_318, 2.733)},
    ("images_gpu", "gan"): {"discriminator": (4_046_849, 2.320), "generator": (4_571_971, 1.393)},
    ("images_gpu", "flow_coupling"): {"flow": (24_960_864, 3.180)},
    ("images_gpu", "flow_autoregressive"): {"flow": (30_417_600, 3.970)},
    ("images_gpu", "flow_matching"): {"velocity": (35_746_307, 11.479)},
    ("images_gpu", "diffusion"): {"denoiser": (35_795_459, 11.479)},
}
"""Player -> parameters that it trains, and GFLOP of its forward pass for one image, both of its networks included."""

MEANT = {
    ("images_fashion", "vae"): 103e3,
    ("images_fashion", "gan"): 58e3 + 33e3,
    ("images_fashion", "flow_coupling"): 30e3,
    ("images_fashion", "flow_autoregressive"): 217e3,
    ("images_fashion", "flow_matching"): 359e3,
    ("images_fashion", "diffusion"): 359e3,
    ("images_gpu", "vae"): 30e6,
    ("images_gpu", "vae_kl"): 30e6,
    ("images_gpu", "gan"): 20e6 + 20e6,
    ("images_gpu", "flow_coupling"): 30e6,
    ("images_gpu", "flow_autoregressive"): 100e6,
    ("images_gpu", "flow_matching"): 35.7e6,
    ("images_gpu", "diffusion"): 35.7e6,
}
"""Parameters that the families were designed with at this size: ours are of the same order."""

MEANT_GFLOP = {"images_fashion": 0.051, "images_gpu": 36.3}
"""Of the U-Nets of flow matching and diffusion: GFLOP for one image, forward and backward, which is three times forward."""


@pytest.fixture(scope="module")
def nodes():
    return {recipe: build_graph(load_recipe(CONFIGS / f"{recipe}.yaml")) for recipe in GRIDS}


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "name"), SIZES)
def test_networks_have_the_size_and_the_cost_that_was_worked_out(recipe, name, nodes):
    node, (channels, side) = nodes[recipe][name], GRIDS[recipe]
    grid = Grid(
        name="blank",
        license="cc0-1.0",
        levels=256,
        channels=channels,
        height=side,
        width=side,
        classes=(),
        sizes={},
        sha256={},
    )
    family = MODELS[node.stage.rpartition(".")[2]](grid, node.config)
    images, labels = torch.randint(256, (2, *grid.shape), dtype=torch.uint8), torch.full((2,), -1)
    players = family.players()
    assert players.keys() == SIZES[recipe, name].keys()
    for player, (num_parameters, gflop) in SIZES[recipe, name].items():
        noise = BatchNoise(seeded_generator(1), first=0, num_rows=2, global_rows=2, device=torch.device("cpu"))
        with FlopLedger() as ledger:
            players[player](images, labels, noise)
        assert sum(p.numel() for p in players[player].parameters()) == num_parameters
        assert ledger.flops / 2 / 1e9 == pytest.approx(gflop, rel=0.01)
    total = sum(num_parameters for num_parameters, _ in SIZES[recipe, name].values())
    assert MEANT[recipe, name] / 5 < total < MEANT[recipe, name] * 5
    if name in ("flow_matching", "diffusion"):
        assert 3 * ledger.flops / 2 / 1e9 == pytest.approx(MEANT_GFLOP[recipe], rel=0.1)


@pytest.mark.parametrize("name", sorted({name for recipe, name in SIZES if recipe == "images_gpu"}))
def test_large_networks_are_not_trained_with_the_rates_of_small_ones(name, nodes):
    assert nodes["images_gpu"][name].config.learning_rate <= 1e-3


CLOTHING_28 = {name: {"num_levels": 2} for name in ("vae", "vae_kl", "gan")}
CLOTHING_28 |= {name: {"block_out_channels": [128, 256, 256]} for name in ("flow_matching", "diffusion")}
"""What the recipe says to change for 28x28, where two halvings are all."""


@pytest.mark.parametrize("name", sorted({name for recipe, name in SIZES if recipe == "images_gpu"}))
def test_the_gpu_recipe_builds_every_family_on_28x28_with_the_changes_it_names(name, nodes):
    node = nodes["images_gpu"][name]
    config = type(node.config).model_validate(node.config.model_dump() | CLOTHING_28.get(name, {}))
    blank = Grid(
        name="blank",
        license="cc0-1.0",
        levels=256,
        channels=1,
        height=28,
        width=28,
        classes=(),
        sizes={},
        sha256={},
    )
    with torch.device("meta"):
        family = MODELS[node.stage.rpartition(".")[2]](blank, config)
    assert family.players()
