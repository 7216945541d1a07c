"""What a repository published by Groundup holds: names of files, and the manifest `groundup.json`.

    groundup.json                            manifest: sha256 and size of every other file
    README.md                                model card or data card
    metrics.json, figures/                   what was measured
    recipe.yaml                              the recipe that made it, when it is known; data, never executed
    LICENSE                                  licence of the weights or data, as it follows from the data
    provenance/<stage>-<fingerprint8>.json   record of the artifact and of all its ancestors
    data_cards/NAME.md                       cards of the data that went into it
    everything else                          model, tokenizer or data in the form that the Hub's libraries load

The manifest is not signed: it shows damage and mistakes, not who wrote it. Pin a commit to be sure of the content.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.artifact import Record
from pipeline.contract import sha256_file, write_json
from pipeline.errors import Damaged

MANIFEST = "groundup.json"
CARD = "README.md"
METRICS = "metrics.json"
FIGURES = "figures"
RECIPE = "recipe.yaml"
LICENSE = "LICENSE"
PROVENANCE = "provenance"
BASE_ORIGIN = "base"
"""Folder of an artifact with manifest and records of a base that was published; its records are published with the others."""
DATA_CARDS = "data_cards"
GIT_ATTRIBUTES = ".gitattributes"
"""The Hub puts this file into every new repository; it belongs to no manifest."""

Part = Literal["adapter", "merged", "model", "tokenizer", "data", "extractors", "space"]
"""What of an artifact a repository holds."""
PARTS: tuple[Part, ...] = get_args(Part)
RepoType = Literal["model", "dataset", "space"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class PublishedFile(BaseModel):
    """One line of the manifest; the size is in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str = Field(pattern=_SHA256.pattern)
    bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """What `groundup.json` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    artifact: str = Field(pattern=_SHA256.pattern)
    """Fingerprint of the artifact that was published."""
    stage: str
    """Dotted name of the stage that made it."""
    part: Part
    produces: str
    """Kind of the artifact: causal_lm, tokenizer, corpus, ..."""
    files: dict[str, PublishedFile]
    """Every other file of the repository, by its relative path."""

    @property
    def repo_type(self) -> RepoType:
        """Type of the repository on the Hub."""
        kinds: dict[str, RepoType] = {"data": "dataset", "space": "space"}
        return kinds.get(self.part, "model")

    def save(self, folder: Path) -> None:
        """Write `groundup.json`, durably."""
        write_json(folder / MANIFEST, self.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read `groundup.json` of `folder`.

        Raises:
            Damaged: it is missing, unreadable, or names a path that leads out of the folder.
        """
        path = folder / MANIFEST
        try:
            found = cls.model_validate(json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise Damaged(f"{path}: no {MANIFEST}; this folder was not assembled by Groundup") from None
        except (OSError, ValueError, RecursionError, ValidationError) as error:
            raise Damaged(f"{path} cannot be read ({str(error).splitlines()[0]})") from None
        if outside := [name for name in found.files if not is_inside(name)]:
            raise Damaged(f"{path}: {outside[0]!r} is no relative path inside the repository")
        return found


def is_inside(name: str) -> bool:
    """Say whether `name` is a plain relative path with forward slashes that stays inside its folder."""
    parts = PurePosixPath(name).parts
    plain = bool(parts) and "\\" not in name and "\0" not in name and PurePosixPath(name).as_posix() == name
    return plain and not name.startswith("/") and ".." not in parts


def published_files(folder: Path) -> dict[str, PublishedFile]:
    """Hash every file under `folder` that belongs into its manifest."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    left_out = (MANIFEST, GIT_ATTRIBUTES)
    return {
        name: PublishedFile(sha256=sha256_file(path), bytes=path.stat().st_size)
        for name, path in sorted(found.items())
        if name not in left_out
    }


def differences(folder: Path, manifest: Manifest) -> list[str]:
    """Return what under `folder` is not as `manifest` says, one sentence each, by hashing every file."""
    found = published_files(folder)
    lines = [f"{name} is missing" for name in manifest.files if name not in found]
    lines += [f"{name} is not in {MANIFEST}" for name in found if name not in manifest.files]
    lines += [f"{name} was changed" for name, entry in manifest.files.items() if name in found and found[name] != entry]
    return lines


def provenance_name(record: Record) -> str:
    """Return the path, inside a repository, of the record of one artifact."""
    return f"{PROVENANCE}/{record.stage.removeprefix('stages.')}-{record.fingerprint[:8]}.json"


def records_of_base(record: Record) -> list[str]:
    """Return the files of an artifact that are records of its published base, and all that went into that."""
    return [name for name in record.files if name.startswith(f"{BASE_ORIGIN}/{PROVENANCE}/")]


def load_provenance(folder: Path) -> dict[str, Record]:
    """Return the records under `folder / "provenance"` by fingerprint.

    Raises:
        Damaged: a record cannot be read, or its digest does not fit.
    """
    paths = sorted((folder / PROVENANCE).glob("*.json"))
    return {record.fingerprint: record for record in (Record.read(path) for path in paths)}
