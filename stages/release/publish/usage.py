"""The code block of a card: what a stranger types to use the model. It is run, as it stands, before anything is published."""

from __future__ import annotations

import json
from typing import Any

from pipeline.artifact import Artifact
from stages.release.publish.image_usage import Usage, image_usage
from stages.release.publish.parts import Selection, read_json


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
        case "classifier":
            return _classifier(artifact, selection, repo)
        case _:
            return image_usage(artifact, selection, repo)


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


def _classifier(artifact: Artifact, selection: Selection, repo: str) -> Usage:
    config = read_json(artifact / selection.kind.folder / "config.json")
    shape = f"{config['channels']}, {config['height']}, {config['width']}"
    code = f"""\
import torch
from stages.common.images.extractor import ExtractorNetwork

network = ExtractorNetwork.from_pretrained("{repo}").eval()
images = torch.randint(0, {config["levels"]}, (4, {shape}), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
with torch.no_grad():
    probabilities = network(images).softmax(dim=1)  # (4, {config["num_outputs"]}): p(class | image)
"""
    return Usage(code, "probabilities", needs_groundup=True)
