"""Proof that what was sent is there: download the commit into a clean cache, compare hashes, load it, measure it again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.contract import sha256_file
from pipeline.errors import DataError, GroundupError, HubError
from stages.common.release.output import say
from stages.common.release.probe import Measured, kind_of, load_probe, measure
from stages.release.push.comparison import Folder
from stages.release.push.hub import Hub

_OF_A_BASE = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
"""What of a base is fetched: weights and tokenizer; not the same weights again as pickles or for other libraries."""
_PUBLISH_BASE = "Nothing was sent: publish the base first, or name the right one with --base-repo"


def verify(hub: Hub, folder: Folder, commit: str) -> dict[str, Any]:
    """Check commit `commit` of the repository against the folder; return what was shown.

    The cache lies beside the folder under the name of the commit, so that a download that was cut goes on; it is removed
    when all of it was right.

    Raises:
        HubError: a file is missing or differs, or what was downloaded does not load or measures otherwise.
    """
    cache = folder.path.absolute().with_name(f".{folder.path.absolute().name}.verify-{commit[:12]}")
    say(f"verifying: downloading {len(folder.files)} files of commit {commit[:7]} into a clean cache")
    place = _download(hub, folder, commit, cache)
    wrong = [path for path, entry in folder.files.items() if sha256_file(place / path) != entry.sha256]
    if wrong:
        shutil.rmtree(cache)
        raise HubError(
            f"{hub.target.repo} at {commit[:7]}: what came back is not what was sent ({', '.join(wrong)}); not published. Run "
            "the same command again; if it stays so, tell the people of the Hub"
        )
    say(f"  sha256 of {len(folder.files)} files: equal")
    # A Space holds an app and no model: it was started before it was sent, and these are the same bytes.
    measured = {} if folder.manifest.part == "space" else _measure_both(hub, folder, place).model_dump()
    shutil.rmtree(cache)
    return {"num_files": len(folder.files), "sha256": "equal", **measured}


def _download(hub: Hub, folder: Folder, commit: str, cache: Path) -> Path:
    """Return the folder that holds the files of the commit."""
    for path in folder.files:
        place = hub.download(path, commit, cache)
    return place.parents[path.count("/")]


def _measure_both(hub: Hub, folder: Folder, place: Path) -> Measured:
    """Load the download in a clean process and compare one metric with what the artifact gave."""
    part, repo = folder.manifest.part, hub.target.repo
    base = _base(hub, place) if kind_of(place, part) == "adapter" else None
    found = measure(place, part, repo=repo, base=base)
    probe = load_probe(folder.path)
    expected = probe if probe is not None else measure(folder.path, part, repo=repo, base=base)
    whose = "the probe" if probe is not None else "the folder"
    shown = f"{found.metric} {found.value:.6g} (n = {found.n:,})"
    if not found.agrees(expected):
        raise HubError(f"{repo}: loaded from the Hub it measures {shown}, {whose} says {expected.value:.6g}; not published")
    say(f"  loaded in a clean process: {shown}, as {whose} says")
    return found


def check_base(hub: Hub, folder: Folder) -> None:
    """Look for the base of an adapter before anything is sent: without it the adapter cannot be proved, nor used.

    Raises:
        HubError: it is not there, or holds no safetensors.
    """
    if kind_of(folder.path, folder.manifest.part) != "adapter":
        return
    name, revision = _base_of(folder.path)
    try:
        found = hub.about(name).ask(hub.api.repo_info, name, revision=revision)
    except GroundupError as error:
        raise HubError(f"the base of the adapter, {_at(name, revision)}: {error}. {_PUBLISH_BASE}") from None
    if not any(file.rfilename.endswith(".safetensors") for file in found.siblings or []):
        raise HubError(f"the base of the adapter, {_at(name, revision)}, holds no safetensors. {_PUBLISH_BASE}")


def _base(hub: Hub, place: Path) -> Path:
    """Fetch the base under an adapter, at the revision that the adapter names."""
    name, revision = _base_of(place)
    say(f"  the adapter needs {_at(name, revision)}: downloading it")
    call = hub.about(name).once
    return Path(call(hub.api.snapshot_download, name, revision=revision, allow_patterns=_OF_A_BASE))


def _base_of(folder: Path) -> tuple[str, str | None]:
    config = json.loads((folder / "adapter_config.json").read_bytes())
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or name.count("/") != 1:
        raise DataError(f"adapter_config.json names the base {name!r}; nobody else finds it: publish the base first")
    return name, revision


def _at(name: str, revision: str | None) -> str:
    return f"{name}@{revision}" if revision else name
