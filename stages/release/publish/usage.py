"""The code block of a card: what a stranger types to use the model. It is run, as it stands, before anything is published."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pipeline.artifact import Artifact
from pipeline.errors import DataError
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


def usage_of(artifact: Artifact, selection: Selection, repo: str, base: str | None, revision: str | None) -> Usage:
    """Return the code for what is published under `repo`; `base` and `revision` name the base under an adapter.

    Raises:
        DataError: the classes of an image model are not ours and not in diffusers.
    """
    match selection.kind.loader:
        case "causal_lm":
            return Usage(_causal_lm(artifact, selection, repo))
        case "adapter":
            return Usage(_adapter(repo, base or "", revision))
        case "tokenizer":
            return Usage(_TOKENIZER.format(repo=repo))
        case "text":
            return Usage(_DATA.format(repo=repo, shown='["text"]'))
        case "images":
            return Usage(_DATA.format(repo=repo, shown=""))
        case "groundup":
            return _extractors(artifact, repo)
        case _:
            return _image_model(artifact, selection, repo)


_TOKENIZER = """\
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
ids = tokenizer("The quick brown fox.").input_ids
print(ids, tokenizer.decode(ids))
"""

_DATA = """\
from datasets import load_dataset

data = load_dataset("{repo}")
print(data)
print(data["train"][0]{shown})
"""


def _causal_lm(artifact: Artifact, selection: Selection, repo: str) -> str:
    config = read_json(artifact / selection.kind.folder / "tokenizer_config.json")
    return f"""\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoModelForCausalLM.from_pretrained("{repo}")
{_generate(_boundary(config))}"""


def _adapter(repo: str, base: str, revision: str | None) -> str:
    pinned = f', revision="{revision}"' if revision else ""
    return f"""\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{base}"{pinned})
base = AutoModelForCausalLM.from_pretrained("{base}"{pinned})
model = PeftModel.from_pretrained(base, "{repo}")
{_generate("tokenizer.bos_token or tokenizer.eos_token")}"""


def _boundary(config: dict[str, Any]) -> str:
    return "tokenizer.bos_token" if config.get("bos_token") else "tokenizer.eos_token"


def _generate(boundary: str) -> str:
    return f"""\
start = {boundary}  # every document opened with it in training
inputs = tokenizer(start + "The", add_special_tokens=False, return_tensors="pt")
outputs = model.generate(**inputs, max_new_tokens=40)
print(tokenizer.decode(outputs[0], skip_special_tokens=True))
"""


def _image_model(artifact: Artifact, selection: Selection, repo: str) -> Usage:
    name = selection.classes[0]
    if name == "AutoencoderKL":
        return Usage(_autoencoder(artifact, selection, repo, "from diffusers import AutoencoderKL"), "outputs")
    if selection.loader == "diffusers":
        return Usage(_saved_usage(artifact, selection, repo), "images")
    if name not in _MODULES:
        raise DataError(
            f"class {name} is neither in diffusers nor one of ours ({', '.join(sorted(_MODULES))}); nobody could load it"
        )
    imported = f"from {_MODULES[name]} import {name}"
    if name == "SmallAutoencoder":
        return Usage(_autoencoder(artifact, selection, repo, imported), "outputs", needs_groundup=True)
    if name.endswith("Pipeline"):
        call = 'pipeline(batch_size=4, generator=generator, output_type="pt").images  # float (4, C, H, W) in [0, 1]'
    else:
        call = "pipeline.draw(4, generator)  # one row of values for each image"
    code = f"""\
import torch
{imported}

pipeline = {name}.from_pretrained("{repo}")
generator = torch.Generator().manual_seed(0)
images = {call}
"""
    return Usage(code, "images", needs_groundup=True)


def _saved_usage(artifact: Artifact, selection: Selection, repo: str) -> str:
    """The stage wrote beside its model how to sample with diffusers alone."""
    readme = artifact / selection.kind.folder / "README.md"
    found = re.search(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL) if readme.is_file() else None
    if found is None:
        raise DataError(f"{readme}: it does not show how to sample; run the recipe again with this version")
    return found[1].replace("FOLDER", json.dumps(repo))


def _autoencoder(artifact: Artifact, selection: Selection, repo: str, imported: str) -> str:
    name = selection.classes[0]
    config, grid = read_json(artifact / selection.kind.folder / "config.json"), read_json(artifact / "grid.json")
    height = width = 1
    if name == "AutoencoderKL":
        factor = 2 ** (len(config["block_out_channels"]) - 1)
        height, width = grid["height"] // factor, grid["width"] // factor
    latents = f"torch.randn(4, {config['latent_channels']}, {height}, {width}, generator=generator)"
    if name == "SmallAutoencoder":  # which has a prior of its own
        latents = f"network.prior.draw({latents}, generator)"
    return f"""\
import torch
{imported}

network = {name}.from_pretrained("{repo}").eval()
generator = torch.Generator().manual_seed(0)
latents = {latents}
with torch.no_grad():
    outputs = network.decode(latents).sample  # parameters of the distribution of each value, {grid["levels"]} levels
"""


def _extractors(artifact: Artifact, repo: str) -> Usage:
    name = json.loads((artifact / "extractors.json").read_bytes())[0]["name"]
    grid = read_json(artifact / "grid.json")
    shape = f"{grid['channels']}, {grid['height']}, {grid['width']}"
    code = f"""\
import torch
from stages.common.images.extractor import ExtractorNetwork

network = ExtractorNetwork.from_pretrained("{repo}", subfolder="{name}").eval()
images = torch.randint(0, {grid["levels"]}, (4, {shape}), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
with torch.no_grad():
    features = network.features(images)
"""
    return Usage(code, "features", needs_groundup=True)
