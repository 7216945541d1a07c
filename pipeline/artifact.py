"""An artifact: a directory that a stage produced, and `record.json`, the proof of where it came from.

The record names the sha256 of every other file (the manifest) and closes with its own digest, so a change by hand is
seen. Facts about the machine stay in `machine.json` and `log.txt`, outside the manifest, so an artifact can be published.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.durable import sha256_file, walk, write_json
from pipeline.errors import Damaged

RECORD = "record.json"
CHECKPOINTS = "checkpoints"
_UNRECORDED = frozenset({RECORD, "machine.json", "log.txt"})


class FileEntry(BaseModel):
    """One line of the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    size: int


class InputEntry(BaseModel):
    """An artifact that was read: its stage kind and fingerprint."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage: str
    fingerprint: str


class Adoption(BaseModel):
    """The user said that a change of code does not change the result (`--keep`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fingerprint: str
    code_before: str
    code_after: str
    time: str


class Record(BaseModel):
    """What `record.json` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = 1
    name: str
    stage: str
    produces: str
    fingerprint: str
    identity: dict[str, Any]
    inputs: dict[str, list[InputEntry]]
    files: dict[str, FileEntry]
    metrics: list[dict[str, Any]]
    provenance: dict[str, Any]
    adopted: list[Adoption] = []

    @property
    def config(self) -> dict[str, Any]:
        """The values of the stage's Config."""
        values: dict[str, Any] = self.identity["config"]
        return values

    def save(self, directory: Path) -> None:
        """Write `record.json` with its digest, durably."""
        values = self.model_dump(mode="json")
        write_json(directory / RECORD, values | {"digest": digest(values)})

    @classmethod
    def load(cls, directory: Path) -> Record:
        """Read and check `record.json` of an artifact; raises as `read` does."""
        return cls.read(directory / RECORD)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read and check the record in file `path`.

        Raises:
            Damaged: it is missing, unreadable, or its digest does not fit.
        """
        try:
            values = json.loads(path.read_bytes())
            claimed = values.pop("digest")
            record = cls.model_validate(values)
            found = digest(values)
        except FileNotFoundError:
            raise Damaged(f"{path}: no record; this directory is not a finished artifact") from None
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError, ValidationError) as error:
            raise Damaged(f"{path}: the record cannot be read ({str(error).splitlines()[0]})") from None
        if found != claimed:
            raise Damaged(f"{path}: the record was changed after it was written (its digest does not fit)")
        return record


class Artifact:
    """A finished artifact, as a stage receives it: `path / "model"`, `record`, `metric("bits_per_byte", "test")`."""

    def __init__(self, path: Path, record: Record) -> None:
        self.path = path
        self.record = record

    @classmethod
    def open(cls, path: Path) -> Artifact:
        """Open the artifact in directory `path`; raises Damaged when its record is not whole."""
        return cls(path, Record.load(path))

    @property
    def fingerprint(self) -> str:
        """The hash of everything that defines this artifact."""
        return self.record.fingerprint

    def metric(self, name: str, split: str | None = None) -> float:
        """Return the value of metric `name` on `split`; raises KeyError when the stage did not measure it."""
        for row in self.record.metrics:
            if row["name"] == name and split in (None, row["split"]):
                return float(row["value"])
        raise KeyError(f"{self.record.stage} {self.fingerprint[:8]} has no metric {name!r} (split {split!r})")

    def __truediv__(self, part: str) -> Path:
        return self.path / part


def digest(values: Any) -> str:
    """Return the sha256 of `values` as canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content(directory: Path) -> dict[str, Path]:
    """Return the files that belong to the artifact in `directory`, by relative name.

    Left out are what tells about the machine and not about the result (log, machine facts), hidden files and checkpoints.
    """
    found = {path.relative_to(directory).as_posix(): path for path in walk(directory)}
    return {
        name: path for name, path in found.items() if name not in _UNRECORDED and not name.startswith((".", f"{CHECKPOINTS}/"))
    }


def manifest(directory: Path) -> dict[str, FileEntry]:
    """Hash every file that belongs to the artifact in `directory`."""
    return {name: FileEntry(sha256=sha256_file(path), size=path.stat().st_size) for name, path in content(directory).items()}


def differences(directory: Path, record: Record) -> list[str]:
    """Return what in `directory` is not as `record` says, one sentence each, by hashing every file."""
    found = manifest(directory)
    lines = [f"{name} is missing" for name in record.files if name not in found]
    lines += [f"{name} was added" for name in found if name not in record.files]
    lines += [f"{name} was changed" for name, entry in record.files.items() if name in found and found[name] != entry]
    return lines
