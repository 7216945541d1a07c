"""Which app suits an artifact, and what that app must know of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.errors import RecipeError

GRID, FAMILY, CONFIG, INDEX = "grid.json", "family.json", "config.json", "model_index.json"


@dataclass(frozen=True)
class App:
    """An app for one artifact.

    Attributes:
        programs: file in the Space -> program of `apps/` that becomes it.
        settings: what the program reads from `settings.json`.
        named: module -> names that a program looks up by a string, so that they are taken along.
        model: folder of the artifact that was published.
        task: what it does, for people.
    """

    programs: dict[str, str]
    settings: dict[str, Any]
    model: Path
    task: str
    named: dict[str, set[str]] = field(default_factory=dict)


def app_for(artifact: Artifact) -> App:
    """Return the app that suits `artifact`.

    Raises:
        RecipeError: there is none.
    """
    record = artifact.record
    if record.produces == "causal_lm":
        return _text(artifact)
    if record.produces == "image_model" and (artifact / FAMILY).is_file():
        family = str(_read(artifact / FAMILY)["family"])
        if family in _FAMILIES:
            return _FAMILIES[family](artifact)
        raise RecipeError(f"no Space for the family '{family}'; there are apps for {', '.join(sorted(_FAMILIES))}, and for text")
    raise RecipeError(f"no Space for what {record.stage} makes ({record.produces}); there are apps for text and image models")


def _text(artifact: Artifact) -> App:
    folder = next((artifact / part for part in ("merged", "model") if (artifact / part / CONFIG).is_file()), None)
    if folder is None:
        raise RecipeError(
            f"{artifact.record.name} {artifact.fingerprint[:8]} holds no whole model; a Space loads one: publish the merged model"
        )
    prompts = artifact.record.config.get("prompts") or [""]
    return App({"app.py": "text.py"}, {"prompt": str(prompts[0])}, folder, "continues a text")


def _images(artifact: Artifact, program: str, settings: dict[str, Any], named: dict[str, set[str]]) -> App:
    grid = _read(artifact / GRID)
    known = {key: grid[key] for key in ("levels", "channels", "height", "width")}
    programs = {"app.py": "images.py", "sampler.py": program}
    return App(programs, known | settings, artifact / "model", "draws images", named)


def _gan(artifact: Artifact) -> App:
    return _images(artifact, "gan.py", *_network(artifact, "generator"))


def _flow(artifact: Artifact) -> App:
    return _images(artifact, "flow.py", *_network(artifact, "flow"))


def _network(artifact: Artifact, part: str) -> tuple[dict[str, Any], dict[str, set[str]]]:
    module, name = _read(artifact / "model" / INDEX)[part]
    return {"network": [module, name]}, {module: {name}}


def _vae(artifact: Artifact) -> App:
    name = str(_read(artifact / "model" / CONFIG)["_class_name"])
    wing = f"{artifact.record.stage}."
    named = {f"{wing}pixels": {"pixel_distribution"}}
    module = "diffusers" if name == "AutoencoderKL" else f"{wing}networks"
    if module != "diffusers":
        named[module] = {name}
    return _images(artifact, "vae.py", {"network": [module, name], "pixels": f"{wing}pixels"}, named)


def _unet(program: str) -> Callable[[Artifact], App]:
    def make(artifact: Artifact) -> App:
        channels = _read(artifact / "model" / "unet" / CONFIG)["in_channels"]
        patch = math.isqrt(channels // _read(artifact / GRID)["channels"])
        settings = {"num_steps": artifact.record.config["num_sample_steps"], "patch": patch}
        return _images(artifact, program, settings, {})

    return make


_FAMILIES: dict[str, Callable[[Artifact], App]] = {
    "gan": _gan,
    "flow": _flow,
    "vae": _vae,
    "diffusion": _unet("diffusion.py"),
    "flow_matching": _unet("flow_matching.py"),
}


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_bytes())
    return values
