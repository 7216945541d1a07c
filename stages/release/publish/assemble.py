"""From an artifact to the folder that becomes a repository on the Hub.

The folder appears in one rename, and the same artifact (with the same evaluations beside it) gives the same bytes: no
time, host or user of the publishing enters.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import RECORD, Artifact, differences
from pipeline.errors import Damaged, InputError, RecipeError
from stages.common.release import layout
from stages.common.release.destination import check_replaceable, put_in_place
from stages.common.release.foreign import foreign_bases
from stages.common.release.layout import Manifest
from stages.common.release.names import check_repo
from stages.common.release.private import without_paths
from stages.release.publish import card
from stages.release.publish.card import Facts
from stages.release.publish.image_usage import Usage
from stages.release.publish.licence import Licence, licence_of
from stages.release.publish.lineage import Lineage, trace
from stages.release.publish.model_index import Measurement, measurements
from stages.release.publish.parts import ON_IMAGES, ON_TEXTS, Selection, read_json, select
from stages.release.publish.probe_images import ProbeImages, probe_images
from stages.release.publish.probe_rows import ProbeRows, probe_rows
from stages.release.publish.sources import card_text, describe
from stages.release.publish.usage import usage_of

ADAPTER_CONFIG = "adapter_config.json"
"""The one file of a model that publishing rewrites: it names the base on the Hub."""
_REVISION = re.compile(r"[\w][\w./-]*")


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A folder that may become a repository, and what the checks need to know of it.

    Attributes:
        folder: the files.
        repo: `owner/name` that they are for.
        base_repo: the base on the Hub, when there is one.
        probe: what one figure is measured on, before upload and after; None for data.
    """

    folder: Path
    repo: str
    base_repo: str | None
    manifest: Manifest
    selection: Selection
    lineage: Lineage
    licence: Licence
    usage: Usage
    probe: ProbeRows | ProbeImages | None


def assemble(
    artifact: Artifact,
    part: str | None,
    repo: str,
    destination: Path,
    *,
    base_repo: str | None = None,
    stated_license: str | None = None,
) -> Assembled:
    """Write everything that is published of `artifact` into `destination`.

    Args:
        artifact: finished, with its ancestors beside it in the store.
        part: of the artifact; None where there is one only.
        repo: `owner/name` on the Hub.
        destination: the folder; replaced if it was assembled before.
        base_repo: `owner/name` or `owner/name@revision` of the base on the Hub.
        stated_license: of data whose records state none.

    Raises:
        InputError: what was asked for cannot be published, or the destination holds something else.
        StoreError: the artifact is damaged, or an ancestor is missing.
    """
    check_repo(repo, "--repo")
    check_destination(destination, artifact)
    if lines := differences(artifact.path, artifact.record):
        raise Damaged(f"{artifact.path}: {'; '.join(lines)}; run the recipe again, then publish")
    selection, lineage = select(artifact, part), trace(artifact)
    base, revision = _base(artifact, selection, base_repo)
    names = lineage.names
    bases = foreign_bases([artifact, *lineage.ancestors.values()])
    others = {f"base {one.pinned}": one.license for one in bases}
    licence = licence_of({names[one.fingerprint]: one for one in lineage.data}, others, stated_license)
    facts = Facts(
        lineage=lineage,
        selection=selection,
        usage=usage_of(artifact, selection, repo, base, revision),
        licence=licence,
        data=[describe(one, names[one.fingerprint]) for one in lineage.data],
        bases=bases,
        probe=_probe(lineage, selection, repo),
        measured=measurements(lineage),
        repo=repo,
        base_repo=base,
        base_revision=revision,
        figures=_captions(artifact),
    )
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write(partial, facts)
    manifest = Manifest(
        artifact=artifact.fingerprint,
        stage=artifact.record.stage,
        part=selection.kind.part,
        produces=artifact.record.produces,
        files=layout.published_files(partial),
    )
    manifest.save(partial)
    put_in_place(partial, destination)
    return Assembled(
        folder=destination,
        repo=repo,
        base_repo=base,
        manifest=manifest,
        selection=selection,
        lineage=lineage,
        licence=licence,
        usage=facts.usage,
        probe=facts.probe,
    )


def check_destination(destination: Path, artifact: Artifact) -> None:
    """Refuse to write over what is not ours, or was changed since it was assembled; raises InputError."""
    if destination.resolve().is_relative_to(artifact.path.resolve()):
        raise InputError(f"--output {destination} lies inside the artifact, which must stay as it is; give another folder")
    check_replaceable(destination)


def _base(artifact: Artifact, selection: Selection, given: str | None) -> tuple[str | None, str | None]:
    """Return repository and revision of the base on the Hub."""
    if given is not None:
        repo, _, revision = given.partition("@")
        check_repo(repo, "--base-repo")
        if (part := selection.kind.part) not in ("adapter", "merged"):
            raise RecipeError(f"--base-repo {given}: goes with an adapter or merged model, not with part '{part}'; leave it out")
        if "@" in given and not _REVISION.fullmatch(revision):
            raise RecipeError(f"--base-repo {given}: after @ stands a commit, tag or branch")
        return repo, revision or None
    path = artifact / "adapter" / "groundup_base.json"
    identity = read_json(path) if path.is_file() else {}
    if identity.get("revision"):
        return str(identity["name"]), str(identity["revision"])
    if selection.kind.part == "adapter":
        raise RecipeError(
            f"--base-repo is missing: an adapter is nothing without its base ({identity.get('name')}); publish that first "
            "(groundup publish BASE --repo owner/name), then name it here: --base-repo owner/name"
        )
    return None, None


def _probe(lineage: Lineage, selection: Selection, repo: str) -> ProbeRows | ProbeImages | None:
    if selection.loader in ON_TEXTS:
        return probe_rows(lineage, repo)
    return probe_images(lineage) if selection.loader in ON_IMAGES else None


def _captions(artifact: Artifact) -> dict[str, str]:
    """Return the pictures of the artifact's section with their captions, those without a caption last."""
    path = artifact / "section.json"
    blocks = read_json(path).get("blocks", []) if path.is_file() else []
    captions = {str(one["path"]): str(one.get("caption", "")) for one in blocks if one.get("kind") == "figure"}
    names = [name for name in artifact.record.files if name.startswith(f"{layout.FIGURES}/")]
    return {name: captions[name] for name in captions if name in names} | {name: "" for name in names if name not in captions}


def _write(folder: Path, facts: Facts) -> None:
    artifact = facts.lineage.artifact
    for name, source in facts.selection.files.items():
        _copy(source, folder / name)
    if facts.is_data:
        from stages.release.publish.data_form import write_data

        write_data(artifact, folder)
    if isinstance(facts.probe, ProbeImages):
        facts.probe.save(folder)
    if facts.selection.kind.part == "adapter":
        path = folder / ADAPTER_CONFIG
        base = {"base_model_name_or_path": facts.base_repo, "revision": facts.base_revision}
        _write_json(path, json.loads(path.read_bytes()) | base)
    for name in facts.figures:
        _copy(artifact / name, folder / name)
    _write_papers(folder, facts)


def _write_papers(folder: Path, facts: Facts) -> None:
    """Write what says where it came from, what was measured, and what may be done with it."""
    lineage = facts.lineage
    for relative in lineage.everything():
        _copy(relative / RECORD, folder / layout.provenance_name(relative.record))
        for name in layout.records_of_base(relative.record):
            _copy(relative / name, folder / name.removeprefix(f"{layout.BASE_ORIGIN}/"))
    (folder / layout.DATA_CARDS).mkdir()
    for data in facts.data:
        if (text := card_text(data)) is not None:
            (folder / layout.DATA_CARDS / f"{_file_name(data.name)}.md").write_bytes(text)
    _write_json(folder / layout.METRICS, [row for one in facts.measured for row in _rows(one)])
    (folder / layout.LICENSE).write_bytes(facts.licence.text().encode())
    if lineage.recipe is not None:
        (folder / layout.RECIPE).write_bytes(without_paths(lineage.recipe.text).encode())
    (folder / layout.CARD).write_bytes(card.write_card(facts).encode())


def _rows(one: Measurement) -> list[dict[str, Any]]:
    """The value of the artifact alone, then the mean that it is part of, which names all that it is over."""
    data = one.data.artifact.fingerprint if one.data else None
    made = {"stage": one.artifact.record.stage, "artifact": one.artifact.fingerprint, "data": data}
    return [row | made for row in (one.row, one.mean) if row]


def _write_json(path: Path, values: object) -> None:
    """The whole folder is made durable at its end, so not each file on its own."""
    text = json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "data"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
