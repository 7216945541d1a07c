"""The code block of an image model's card: it ends with images, as whole numbers or as values in [0, 1]."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pipeline.artifact import Artifact
from pipeline.errors import DataError
from stages.common.images.grid import in_comment
from stages.release.publish.parts import Selection, read_json


@dataclass(frozen=True)
class Usage:
    """How to use what is published.

    Attributes:
        code: Python.
        result: name of the variable that holds what it made; empty where there is nothing to compare.
        needs_groundup: own classes are imported, so it runs in a checkout of Groundup only.
    """

    code: str
    result: str = ""
    needs_groundup: bool = False


_MODULES = {
    "GANPipeline": "stages.image.gan.pipeline",
    "FlowPipeline": "stages.image.flow.pipeline",
    "SmallAutoencoder": "stages.image.vae.networks",
    "IndependentPixels": "stages.image.classic.densities",
    "GaussianMixture": "stages.image.classic.densities",
    "ProbabilisticPCA": "stages.image.classic.densities",
}
"""Where our own classes lie."""
_SHOWN = 4
"""Images that the code draws."""


def image_usage(artifact: Artifact, selection: Selection, repo: str) -> Usage:
    """Return the code that draws images from a model published under `repo`.

    Raises:
        DataError: its classes are not ours and not in diffusers.
    """
    name = selection.classes[0]
    if name == "AutoencoderKL":
        return Usage(_autoencoder_kl(artifact, selection, repo), "images")
    if selection.loader == "diffusers":
        return Usage(_saved(artifact, selection, repo), "images")
    if name not in _MODULES:
        raise DataError(
            f"class {name} is neither in diffusers nor one of ours ({', '.join(sorted(_MODULES))}); nobody could load it"
        )
    imported = f"from {_MODULES[name]} import {name}"
    if name == "SmallAutoencoder":
        code = _small_autoencoder(artifact, selection, repo, imported)
    elif name.endswith("Pipeline"):
        code = _pipeline(artifact, selection, repo, imported)
    else:
        code = _density(artifact, name, repo, imported)
    return Usage(code, "images", needs_groundup=True)


def _saved(artifact: Artifact, selection: Selection, repo: str) -> str:
    """The stage wrote beside its model how to sample with diffusers alone."""
    readme = artifact / selection.kind.folder / "README.md"
    found = re.search(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL) if readme.is_file() else None
    if found is None:
        raise DataError(f"{readme}: it does not show how to sample; run the recipe again with this version")
    return found[1].replace("FOLDER", json.dumps(repo))


def _pipeline(artifact: Artifact, selection: Selection, repo: str, imported: str) -> str:
    flow = artifact / selection.kind.folder / "flow" / "config.json"
    num_classes = int(read_json(flow).get("num_classes", 0)) if flow.is_file() else 0
    what = f"class_labels={[label % num_classes for label in range(_SHOWN)]}" if num_classes else f"batch_size={_SHOWN}"
    return f"""\
import torch
{imported}

pipeline = {selection.classes[0]}.from_pretrained("{repo}")
generator = torch.Generator().manual_seed(0)
images = pipeline({what}, generator=generator, output_type="pt").images  # float ({_SHOWN}, C, H, W) in [0, 1]
"""


def _density(artifact: Artifact, name: str, repo: str, imported: str) -> str:
    grid = read_json(artifact / "grid.json")
    drawn = f"density.draw({_SHOWN}, generator).view({_SHOWN}, {_shape(grid)})"
    if name == "IndependentPixels":
        images = f"images = {drawn}  {_integers(grid)}"
    else:
        images = f"values = {drawn}  # in [-1, 1)\nimages = {_quantised('values', grid)}  {_integers(grid)}"
    return f"""\
import torch
{imported}

density = {name}.from_pretrained("{repo}")
generator = torch.Generator().manual_seed(0)
{images}
"""


def _small_autoencoder(artifact: Artifact, selection: Selection, repo: str, imported: str) -> str:
    config, grid = read_json(artifact / selection.kind.folder / "config.json"), read_json(artifact / "grid.json")
    labels, given = "", ""
    if num_classes := int(config.get("num_classes", 0)):
        labels = f"labels = torch.arange({_SHOWN}) % {num_classes}  # {in_comment(grid['classes'])}\n"
        given = ", labels"
    return f"""\
import torch
{imported}
from stages.image.vae.pixels import pixel_distribution

network = SmallAutoencoder.from_pretrained("{repo}").eval()
generator = torch.Generator().manual_seed(0)
{labels}normal = torch.randn({_SHOWN}, {config["latent_channels"]}, 1, 1, generator=generator)
with torch.no_grad():
    outputs = network.decode(network.prior.draw(normal, generator){given}).sample  # what p(x | z) is read from
uniform = torch.rand({_SHOWN}, {_shape(grid)}, generator=generator)
images = pixel_distribution({grid["levels"]}, {grid["channels"]}).sample(outputs, uniform)  {_integers(grid)}
"""


def _autoencoder_kl(artifact: Artifact, selection: Selection, repo: str) -> str:
    """With diffusers alone, so what p(x | z) is read from is told in full: logits of each level, or a logistic density."""
    config, grid = read_json(artifact / selection.kind.folder / "config.json"), read_json(artifact / "grid.json")
    levels, channels = grid["levels"], grid["channels"]
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    latents = f"{_SHOWN}, {config['latent_channels']}, {grid['height'] // factor}, {grid['width'] // factor}"
    if config["out_channels"] == channels * levels:
        read = f"logits = network.decode(latents).sample.unflatten(1, ({channels}, {levels}))  # of each level, for each value"
        drawn = f"(logits.double().softmax(2).cumsum(2) <= uniform.unsqueeze(2)).sum(2).clamp(max={levels - 1})"
    else:
        read = f"centre, log_scale = network.decode(latents).sample.unflatten(1, ({channels}, 2)).unbind(2)  # logistic densities"
        drawn = _quantised("(centre + log_scale.clamp(min=-7).exp() * torch.logit(uniform, eps=1e-6))", grid)
    return f"""\
import torch
from diffusers import AutoencoderKL

network = AutoencoderKL.from_pretrained("{repo}").eval()
generator = torch.Generator().manual_seed(0)
latents = torch.randn({latents}, generator=generator)  # of the prior, N(0, 1)
with torch.no_grad():
    {read}
uniform = torch.rand({_SHOWN}, {_shape(grid)}, generator=generator)
images = {drawn}  {_integers(grid)}
"""


def _shape(grid: dict[str, Any]) -> str:
    return f"{grid['channels']}, {grid['height']}, {grid['width']}"


def _integers(grid: dict[str, Any]) -> str:
    return f"# ({_SHOWN}, {_shape(grid)}), integers 0 ... {grid['levels'] - 1}"


def _quantised(values: str, grid: dict[str, Any]) -> str:
    """Return an expression for the level of each value in [-1, 1]."""
    return f"(({values} + 1) * {grid['levels']} / 2).floor().clamp(0, {grid['levels'] - 1})"
