"""What of an artifact is published, in the form in which the Hub's libraries load it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.artifact import Artifact
from pipeline.errors import Damaged, RecipeError
from stages.common.release.layout import PARTS, Part

Loader = Literal["causal_lm", "adapter", "tokenizer", "text", "images", "diffusers", "groundup", "classifier"]
"""How it is loaded: the class of a library, or, for `groundup` and `classifier`, classes of our own."""
ON_TEXTS: frozenset[Loader] = frozenset({"causal_lm", "adapter", "tokenizer"})
ON_IMAGES: frozenset[Loader] = frozenset({"diffusers", "groundup", "classifier"})
"""What is measured on texts or on images, so that its repository brings a `probe.json`."""


@dataclass(frozen=True)
class Kind:
    """One way to publish an artifact.

    Attributes:
        part: its name on the command line.
        folder: of the artifact; its files go to the root of the repository.
        marker: a file that is there when the part is.
        loader: how it loads.
        library: of the Hub's `library_name`.
        task: of the Hub's `pipeline_tag`; None where none fits.
        beside: files of the artifact that go with it.
    """

    part: Part
    folder: str
    marker: str
    loader: Loader
    library: str | None
    task: str | None
    beside: tuple[str, ...] = ()


_TEXT = ("transformers", "text-generation")
_IMAGE = ("diffusers", "unconditional-image-generation")
KINDS: dict[str, tuple[Kind, ...]] = {
    "causal_lm": (
        Kind("merged", "merged", "config.json", "causal_lm", *_TEXT),
        Kind("adapter", "adapter", "adapter_config.json", "adapter", "peft", "text-generation"),
        Kind("model", "model", "config.json", "causal_lm", *_TEXT),
    ),
    "tokenizer": (Kind("tokenizer", "tokenizer", "tokenizer.json", "tokenizer", "transformers", None),),
    "corpus": (Kind("data", "data", "dataset_dict.json", "text", None, "text-generation"),),
    "images": (Kind("data", ".", "images.safetensors", "images", None, "unconditional-image-generation"),),
    "image_model": (
        Kind("model", "model", "model_index.json", "diffusers", *_IMAGE, ("grid.json", "family.json")),
        Kind("model", "model", "config.json", "diffusers", *_IMAGE, ("grid.json", "family.json")),
    ),
    "discriminative_classifier": (Kind("model", "model", "config.json", "classifier", "diffusers", "image-classification"),),
    "feature_extractors": (
        Kind("extractors", ".", "extractors.json", "groundup", "diffusers", "image-feature-extraction", ("grid.json",)),
    ),
}


@dataclass(frozen=True)
class Selection:
    """What is published of an artifact.

    Attributes:
        kind: what it is.
        loader: how it loads; `groundup` when diffusers does not know its class.
        files: path in the repository -> file of the artifact; empty for data, which is converted.
        classes: names of the classes that load it, for image models.
    """

    kind: Kind
    loader: Loader
    files: dict[str, Path]
    classes: tuple[str, ...]


def select(artifact: Artifact, part: str | None) -> Selection:
    """Choose what to publish; `part` may be left out where there is one only.

    Raises:
        RecipeError: such an artifact cannot be published, or it has no such part, or several.
    """
    record = artifact.record
    kinds = KINDS.get(record.produces)
    if kinds is None:
        raise RecipeError(
            f"{record.stage} makes '{record.produces}', which is not published; what can be: {', '.join(sorted(KINDS))}"
        )
    present = [kind for kind in kinds if (artifact.path / kind.folder / kind.marker).is_file()]
    found = {kind.part: kind for kind in reversed(present)}  # of two forms of one part, the first
    if part is None and len(found) == 1:
        part = next(iter(found))
    if part not in found:
        said = "--part is missing" if part is None else f"--part {part}: not in this artifact"
        choice = ", ".join(f"--part {name}" for name in PARTS if name in found) or "no part of it is there"
        raise RecipeError(f"{said}; {record.name} {record.fingerprint[:8]} has: {choice}")
    kind = found[part]
    classes = _classes(artifact.path / kind.folder) if kind.loader == "diffusers" else ()
    loader: Loader = "groundup" if any(not _in_diffusers(name) for name in classes) else kind.loader
    return Selection(kind, loader, _files(artifact, kind), classes)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of an artifact; raises Damaged when it is none."""
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Damaged(f"{path} cannot be read ({str(error).splitlines()[0]}); run the recipe again") from None
    return values


def _files(artifact: Artifact, kind: Kind) -> dict[str, Path]:
    """The README of a part is left out: the card takes its place."""
    if kind.part == "data":
        return {}
    recorded = list(artifact.record.files)
    if kind.part == "extractors":
        networks = [row["name"] for row in json.loads((artifact / kind.marker).read_bytes())]
        chosen = {name: name for name in recorded if name == kind.marker or name.partition("/")[0] in networks}
    else:
        prefix = f"{kind.folder}/"
        chosen = {name.removeprefix(prefix): name for name in recorded if name.startswith(prefix)}
        chosen.pop("README.md", None)
    chosen |= {name: name for name in kind.beside if name in recorded}
    return {target: artifact.path / name for target, name in sorted(chosen.items())}


def _classes(folder: Path) -> tuple[str, ...]:
    """Return the class of a saved network or pipeline, and those of a pipeline's parts."""
    index = folder / "model_index.json"
    if not index.is_file():
        return (str(read_json(folder / "config.json")["_class_name"]),)
    values = read_json(index)
    parts = [value[1] for value in values.values() if isinstance(value, list) and len(value) == 2]
    return (str(values["_class_name"]), *map(str, parts))


def _in_diffusers(name: str) -> bool:
    import diffusers  # takes seconds; only for image models

    return hasattr(diffusers, name)
