"""From an artifact to the folder of a Space: app, settings, the code of ours that it needs, requirements, card, manifest."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

from pipeline.artifact import RECORD, Artifact
from pipeline.contract import write_bytes, write_json
from stages.common.release.destination import check_replaceable, put_in_place
from stages.common.release.foreign import foreign_bases
from stages.common.release.layout import CARD, Manifest, published_files
from stages.release.space.kinds import App
from stages.release.space.vendoring import TOPS, imported, vendor

PROJECT = Path(__file__).resolve().parents[3]
APPS = Path(__file__).with_name("apps")
GRADIO = "6.31.0"
"""Version that the apps are tested with; the Hub installs the one that the card names."""
_LEFT_TO_GRADIO = frozenset({"pillow"})
"""Gradio holds these below a version of its own, which may not be the newest."""


def assemble(
    artifact: Artifact,
    app: App,
    *,
    repo: str,
    model_repo: str,
    revision: str,
    destination: Path,
    stated_license: Mapping[str, Any] | None = None,
) -> Path:
    """Write the Space of `artifact` into the folder `destination` in one rename; return it.

    Args:
        artifact: what was published.
        app: from `app_for`.
        repo: `owner/name` of the Space.
        model_repo: `owner/name` of the published model.
        revision: commit of it that the Space loads.
        destination: a new folder, or one that was assembled before.
        stated_license: `license` and `license_name` of the published model; nothing: what the stage said of itself.

    Raises:
        InputError: something else lies at the destination, or it was changed since.
    """
    check_replaceable(destination)
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, content in _files(artifact, app, repo, model_repo, revision, stated_license).items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(partial / name, content.encode())
    settings = app.settings | {"model_repo": model_repo, "revision": revision}
    write_json(partial / "settings.json", settings | {"title": _title(repo), "about": _about(artifact, app, model_repo)})
    record = artifact.record
    Manifest(
        artifact=record.fingerprint,
        stage=record.stage,
        part="space",
        produces=record.produces,
        files=published_files(partial),
    ).save(partial)
    put_in_place(partial, destination)
    return destination


def _files(
    artifact: Artifact, app: App, repo: str, model_repo: str, revision: str, stated: Mapping[str, Any] | None
) -> dict[str, str]:
    programs = {name: (APPS / source).read_text(encoding="utf-8") for name, source in app.programs.items()}
    wanted = {module: set(names) for module, names in app.named.items()}
    for code in programs.values():
        for module, names in imported(code).items():
            wanted.setdefault(module, set()).update(names)
    taken = programs | vendor(wanted, PROJECT)
    licence = (PROJECT / "LICENSE").read_text(encoding="utf-8")
    return taken | {
        "requirements.txt": "".join(f"{line}\n" for line in requirements(taken, local=set(app.programs))),
        "LICENSE-groundup": licence,
        CARD: card(artifact, app, repo, model_repo, revision, stated or {}),
    }


def requirements(code: dict[str, str], *, local: set[str]) -> list[str]:
    """Return the packages that `code` imports, at the versions that run here; found in the syntax trees."""
    names = {f"{name}.py" if f"{name}.py" in local else name for text in code.values() for name in _imports(text)}
    others = names - sys.stdlib_module_names - local - set(TOPS) - {"gradio"}
    found = {_distributions()[name][0].lower().replace("_", "-") for name in others}
    pinned = sorted(name if name in _LEFT_TO_GRADIO else f"{name}=={_version(name)}" for name in found | {"safetensors"})
    return [f"gradio=={GRADIO}", *pinned]


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()  # it reads the file list of each package that is installed


def _imports(code: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def _version(name: str) -> str:
    return importlib.metadata.version(name).partition("+")[0]


def card(artifact: Artifact, app: App, repo: str, model_repo: str, revision: str, stated_license: Mapping[str, Any]) -> str:
    """Return the README of the Space: what the Hub reads at its head, then words for people."""
    values: dict[str, Any] = {
        "title": _title(repo),
        "colorFrom": "indigo",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "pinned": False,
        "models": [model_repo],
        **(stated_license or _license(artifact)),
    }
    head = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return f"""---
{head}---

# {_title(repo)}

{_about(artifact, app, model_repo)}

It loads commit `{revision}` of the model and nothing else; no code of the model's repository is run. Where that repository is
private, give the Space a secret named `HF_TOKEN` with a token that may read it.

On a machine of your own, in an environment of its own:

    pip install -r requirements.txt
    python app.py

`MODEL_FOLDER=FOLDER` in front of the second line takes the model from a folder. `stages/` and `pipeline/` hold the few
definitions of [Groundup](LICENSE-groundup) (Apache-2.0) that the app needs, taken along so that it runs by itself.
"""


def _license(artifact: Artifact) -> dict[str, Any]:
    """Return what the stage itself said, where the published card is not at hand."""
    stated = metadata_load(artifact / "card.md") if (artifact / "card.md").is_file() else None
    found = {key: (stated or {}).get(key) for key in ("license", "license_name")}
    return {key: value for key, value in found.items() if value} or {"license": "other"}


def _title(repo: str) -> str:
    return repo.partition("/")[2].replace("-", " ").replace("_", " ")


def _with_bases(artifact: Artifact) -> Iterator[Artifact]:
    """Yield the artifact, the base that it was fine-tuned from, that one's base and so on, as far as they are in the store."""
    shelf, pending = artifact.path.resolve().parent.parent, [artifact]
    while pending:
        yield (one := pending.pop())
        for entry in one.record.inputs.get("base", []):
            folder = shelf / entry.stage.removeprefix("stages.")
            pending += [Artifact.open(folder / name) for name in (entry.fingerprint[:8],) if (folder / name / RECORD).is_file()]


def _about(artifact: Artifact, app: App, model_repo: str) -> str:
    origin = " and ".join(f"`{base.pinned}`" for base in foreign_bases(_with_bases(artifact)))
    made = f"fine-tuned with Groundup from {origin}" if origin else "trained from the ground up with Groundup"
    return (
        f"[{model_repo}](https://huggingface.co/{model_repo}) {app.task}. It was {made} "
        f"({artifact.record.stage}, artifact `{artifact.fingerprint[:8]}`); what it learnt from and how well is in its card."
    )
