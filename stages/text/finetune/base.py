"""Where the base comes from: an artifact of the recipe, a folder, or the Hub; afterwards it is a folder in any case."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.repocard import metadata_load

from pipeline.artifact import Artifact
from pipeline.contract import Context
from pipeline.errors import DataError, RecipeError
from stages.common.causal_lm import model_folder
from stages.common.lora import BaseIdentity, folder_sha256
from stages.text.finetune.config import Config


@dataclass(frozen=True)
class Base:
    """A saved causal LM.

    Attributes:
        folder: loads with `AutoModelForCausalLM`.
        identity: what the adapter is bound to.
        license: of the base as its card states it, else "not stated".
    """

    folder: Path
    identity: BaseIdentity
    license: str


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
        return _of_hub(config.hub_base.repo, config.hub_base.revision, offline=context.offline)
    folder = Path(os.path.expanduser(config.base or ""))
    name = folder.resolve().name
    return Base(folder, BaseIdentity(f"folder:{name}", folder_sha256(folder)), _license_in(folder / "README.md"))


def _of_artifact(artifact: Artifact) -> Base:
    folder = model_folder(artifact)
    name = f"{artifact.record.stage.rpartition('.')[2]}:{artifact.fingerprint[:8]}"
    identity = BaseIdentity(name, folder_sha256(folder), artifact=artifact.fingerprint)
    return Base(folder, identity, _license_in(artifact / "card.md"))


def _of_hub(repo: str, revision: str, *, offline: bool) -> Base:
    try:
        # The files of a causal LM and its tokenizer; no pickles, no code.
        wanted = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md"]
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=wanted, local_files_only=offline))
    except LocalEntryNotFoundError:
        raise DataError(f"base: hub:{repo}@{revision} is not in the local cache and cannot be fetched; run once online") from None
    except (HfHubHTTPError, OSError) as error:
        raise DataError(f"base: hub:{repo}@{revision} cannot be fetched: {str(error).splitlines()[0]}") from None
    return Base(folder, BaseIdentity(repo, folder_sha256(folder), revision=folder.name), _license_in(folder / "README.md"))


def _license_in(card: Path) -> str:
    if not card.exists():
        return "not stated"
    return str((metadata_load(card) or {}).get("license", "not stated"))
