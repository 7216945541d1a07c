"""Where the base comes from: an artifact of the recipe, a folder, or the Hub; afterwards it is a folder in any case."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub.repocard import metadata_load

from pipeline.artifact import Artifact, Record
from pipeline.contract import Context, HubRepo, write_bytes
from pipeline.errors import DataError, RecipeError
from stages.common.causal_lm import model_folder
from stages.common.lora import BaseIdentity, folder_sha256
from stages.common.release.fetch import cached, fetch, inconsistencies, remember_revision, resolve_commit
from stages.common.release.layout import BASE_ORIGIN, MANIFEST, PROVENANCE, Manifest, load_provenance
from stages.common.release.model_checks import base_problems, model_problems
from stages.text.finetune.config import Config

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Base:
    """A saved causal LM.

    Attributes:
        folder: loads with `AutoModelForCausalLM`.
        identity: what the adapter is bound to.
        license: of the base as its card states it, else "not stated".
        manifest: of a base that Groundup published.
        records: of such a base: its artifact and all that went into it.
    """

    folder: Path
    identity: BaseIdentity
    license: str
    manifest: Manifest | None = None
    records: tuple[Record, ...] = ()

    def save_origin(self, directory: Path) -> None:
        """Copy manifest and records of a published base into the artifact, byte by byte."""
        if self.manifest is not None:
            names = [MANIFEST, *(name for name in self.manifest.files if name.startswith(f"{PROVENANCE}/"))]
            for name in names:
                path = directory / BASE_ORIGIN / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, (self.folder / name).read_bytes())


def open_base(config: Config, context: Context) -> Base:
    """Return the base that the recipe or the config names.

    Raises:
        RecipeError: both name one, or neither.
        DataError: there is no model where it should be.
    """
    given = context.inputs("base")
    if bool(given) == (config.base is not None):
        said = "both are given" if given else "neither is given"
        raise RecipeError(f"the base comes from `needs: {{base: ...}}` or from the key 'base', and {said}; give exactly one")
    if given:
        return _of_artifact(given[0])
    if config.hub_base is not None:
        return _of_hub(config.hub_base, context)
    folder = Path(os.path.expanduser(config.base or ""))
    manifest = Manifest.load(folder) if (folder / MANIFEST).is_file() else None
    problems = base_problems(folder) or (inconsistencies(folder, manifest) if manifest else model_problems(folder, own=False))
    _refuse(f"'{config.base}'", problems)
    return _of_folder(folder, f"folder:{folder.resolve().name}", None, manifest)


def _of_artifact(artifact: Artifact) -> Base:
    folder = model_folder(artifact)
    name = f"{artifact.record.stage.rpartition('.')[2]}:{artifact.fingerprint[:8]}"
    licence = license_in(artifact / "card.md")
    identity = BaseIdentity(name, folder_sha256(folder), artifact=artifact.fingerprint, license=licence)
    return Base(folder, identity, licence)


def _of_hub(source: HubRepo, context: Context) -> Base:
    """Fetch the commit that the fingerprint holds (the branch may have moved since), or take it from the cache."""
    commit = context.hub_commit(source.repo) or resolve_commit(source.repo, source.revision, offline=context.offline)
    fetched = cached(source.repo, commit) if context.offline else fetch(source.repo, commit)
    if not context.offline:
        remember_revision(source.repo, source.revision, commit)
    _refuse(f"hub:{source.repo}@{commit[:8]}", base_problems(fetched.folder))
    return _of_folder(fetched.folder, source.repo, commit, fetched.manifest)


def _of_folder(folder: Path, name: str, commit: str | None, manifest: Manifest | None) -> Base:
    records = tuple(load_provenance(folder).values()) if manifest else ()
    artifact = manifest.artifact if manifest else None
    licence = license_in(folder / "README.md")
    identity = BaseIdentity(name, folder_sha256(folder), artifact=artifact, revision=commit, license=licence)
    return Base(folder, identity, licence, manifest, records)


def _refuse(where: str, problems: list[str]) -> None:
    if problems:
        raise DataError(f"base: {where} cannot be fine-tuned: " + "; ".join(problems))


def license_in(card: Path) -> str:
    """Return the licence that the head of a model card states, several joined by " and "; `other` goes by its name."""
    try:
        values = metadata_load(card) if card.exists() else None
    except (ValueError, yaml.YAMLError):  # somebody else's card; the model is none the worse for it
        values = None
    given = (values or {}).get("license")
    names = [str(one) for one in (given if isinstance(given, list) else [given]) if one]
    called = (values or {}).get("license_name")
    return " and ".join(str(called) if name == "other" and called else name for name in names) or NOT_STATED
