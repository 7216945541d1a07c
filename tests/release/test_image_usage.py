"""The code of an image model's card draws what the model itself draws, also with diffusers alone, and nothing of others runs in it."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.artifact import Artifact
from stages.common.images.grid import Grid, in_comment
from stages.image.classic.densities import GaussianMixture, IndependentPixels
from stages.image.flow.config import Config as FlowConfig
from stages.image.flow.model import Flow
from stages.image.flow_matching.config import Config as MatchingConfig
from stages.image.flow_matching.model import FlowMatching
from stages.image.flow_matching.report import write_usage
from stages.image.vae.config import Config as VaeConfig
from stages.image.vae.model import VAE
from stages.release.publish.image_usage import Usage, image_usage
from stages.release.publish.parts import select
from tests.release import toy_store as toy

GRID = Grid(
    name="bars", license="mit", levels=4, channels=1, height=8, width=8, classes=("row", "column", "dot"), sizes={}, sha256={}
)
COLOUR = replace(GRID, levels=64, channels=3, classes=())
HOSTILE = 'a"\nimport os\r```'
TINY = {"hidden_size": 16, "num_levels": 1, "latent_channels": 2}


def usage_of(root: Path, grid: Grid, save: Any) -> Usage:
    """Return the usage of a model that `save` writes into a folder; it loads from there."""
    save(root / "saved")
    files = {f"model/{path.relative_to(root / 'saved')}": path.read_bytes() for path in (root / "saved").rglob("*.*")}
    artifact: Artifact = toy.put(
        root, "stages.image.toy", "a0000001", "image_model", files | {"grid.json": json.dumps(asdict(grid))}
    )
    return image_usage(artifact, select(artifact, None), str(root / "saved"))


def run(usage: Usage) -> torch.Tensor:
    names: dict[str, Any] = {}
    exec(usage.code, names)  # noqa: S102  # the code of our own card
    return names[usage.result]


def vae(grid: Grid, **values: Any) -> VAE:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        family = VAE(grid, VaeConfig.parse(TINY | values, where="vae"))
        for parameter in family.network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    family.network.eval()
    return family


@pytest.mark.parametrize("grid", [GRID, COLOUR], ids=["logits", "logistic"])
def test_an_autoencoder_kl_draws_images_with_diffusers_alone(tmp_path, grid):
    family = vae(grid, architecture="autoencoder_kl")
    usage = usage_of(tmp_path, grid, family.save)
    assert not usage.needs_groundup
    assert "stages" not in usage.code
    images = run(usage)
    assert len(images.unique()) > 3
    assert torch.equal(images.to(torch.uint8), family.sample(4, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("class_conditional", [False, True])
def test_a_small_autoencoder_draws_what_it_draws_in_training_also_given_a_class(tmp_path, class_conditional):
    family = vae(GRID, class_conditional=class_conditional)
    usage = usage_of(tmp_path, GRID, family.save)
    assert usage.needs_groundup
    assert ("labels = torch.arange(4) % 3  # row, column, dot" in usage.code) == class_conditional
    assert torch.equal(run(usage), family.sample(4, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("class_conditional", [False, True])
def test_a_flow_draws_also_given_a_class(tmp_path, class_conditional):
    values = {"hidden_size": 8, "num_transforms": 2, "class_conditional": class_conditional}
    usage = usage_of(tmp_path, GRID, Flow(GRID, FlowConfig.parse(values, where="flow")).save)
    assert ("class_labels=[0, 1, 2, 0]" in usage.code) == class_conditional
    assert run(usage).shape == (4, 1, 8, 8)


def test_a_density_draws_images_on_the_grid_and_not_bare_rows(tmp_path):
    pixels = IndependentPixels(num_dims=64, levels=4)
    pixels.probabilities.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).expand(64, 4))
    mixture = GaussianMixture(num_dims=64, num_components=1)
    mixture.weights.fill_(1.0)
    mixture.cholesky_factors.copy_(torch.eye(64, dtype=torch.float64)[None])
    for number, density in enumerate((pixels, mixture)):
        images = run(usage_of(tmp_path / str(number), GRID, density.save_pretrained))
        assert images.shape == (4, 1, 8, 8)
        assert sorted(images.unique().tolist()) == [0, 1, 2, 3]


def test_a_class_whose_name_is_code_stays_a_comment(tmp_path):
    grid = replace(GRID, classes=(HOSTILE, "column", "dot"))
    assert in_comment([HOSTILE]) == "a__import os____"
    assert in_comment([str(number) for number in range(30)]).endswith("18, 19, ...")
    code = usage_of(tmp_path / "vae", grid, vae(grid, class_conditional=True).save).code
    values = {"block_out_channels": [8], "class_conditional": True}
    family = FlowMatching(grid, MatchingConfig.parse(values, where="flow_matching"))
    write_usage(tmp_path, family)
    shown = (tmp_path / "README.md").read_text()
    assert shown.count("```") == 2
    for text in (code, shown.split("```python\n")[1].split("```")[0]):
        imported = {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
        assert imported == {"torch"}
