"""Repositories as Groundup publishes them, built by hand and small; and a way to put any folder on the stand-in Hub."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from pipeline.artifact import FileEntry, InputEntry, Record, digest
from pipeline.durable import sha256_file, write_json
from stages.common.release.layout import Manifest, provenance_name, published_files
from tests.hub.repository import Entry, is_large
from tests.hub.server import HubServer

CONFIG: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 4}


def put(
    hub: HubServer,
    repo: str,
    folder: Path,
    *,
    private: bool = False,
    extra: dict[str, bytes] | None = None,
    kind: str = "model",
) -> str:
    """Commit all files under `folder` (and `extra`, by name) to `main` of a repository; return the commit."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repository = hub.state.repositories.get((kind, repo)) or hub.state.create(kind, repo, private=private)
    tree = {".gitattributes": repository.head().tree[".gitattributes"]}
    for name, content in (found | (extra or {})).items():
        if is_large(name, len(content)):
            sha256 = hashlib.sha256(content).hexdigest()
            hub.state.store_large(sha256, [content])
            tree[name] = Entry(len(content), sha256=sha256)
        else:
            tree[name] = Entry(len(content), content)
    return repository.commit("main", tree, f"state {len(repository.commits)}", repository.owner).oid


def plain_model(folder: Path, **config: Any) -> Path:
    """A saved model of one small matrix, with a tokenizer of four words."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.arange(8, dtype=np.float32).reshape(4, 2)}, folder / "model.safetensors")
    write_json(folder / "config.json", CONFIG | config)
    Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1, "b": 2, "c": 3}, unk_token="a")).save(str(folder / "tokenizer.json"))
    return folder


def record_of(stage: str, produces: str, inputs: dict[str, Record], files: dict[str, FileEntry], **config: Any) -> Record:
    """A record as the engine writes it: its fingerprint is the digest of its identity."""
    entries = {role: [InputEntry(stage=one.stage, fingerprint=one.fingerprint)] for role, one in inputs.items()}
    identity = {"stage": stage, "config": config, "sources": [], "code": {}}
    identity["inputs"] = {role: [one.fingerprint] for role, one in inputs.items()}
    values = {"name": stage.rpartition(".")[2], "stage": stage, "produces": produces, "identity": identity}
    return Record(fingerprint=digest(identity), inputs=entries, files=files, metrics=[], provenance={}, **values)


def close(folder: Path, record: Record, part: str = "model") -> Path:
    """Write the manifest of all that lies under `folder`."""
    files = published_files(folder)
    Manifest(artifact=record.fingerprint, stage=record.stage, part=part, produces=record.produces, files=files).save(folder)
    return folder


def save_record(folder: Path, record: Record) -> Path:
    """Write one record into `provenance/`."""
    path = folder / provenance_name(record)
    path.parent.mkdir(exist_ok=True)
    values = record.model_dump(mode="json")
    write_json(path, values | {"digest": digest(values)})
    return path


def published(folder: Path, *, model: Path | None = None) -> tuple[Path, Record]:
    """A published model with a corpus and a tokenizer among its ancestors; return folder and the artifact's record."""
    plain_model(folder)
    for path in model.iterdir() if model else ():
        (folder / path.name).write_bytes(path.read_bytes())
    inside = {path.name: FileEntry(sha256=sha256_file(path), size=path.stat().st_size) for path in folder.iterdir()}
    corpus = record_of("stages.text.corpus", "corpus", {}, {}, card="plays")
    tokenizer = record_of("stages.text.tokenizer", "tokenizer", {"corpus": corpus}, {}, vocab_size=4)
    files = {f"model/{name}": entry for name, entry in inside.items()}
    record = record_of("stages.text.pretrain", "causal_lm", {"corpus": corpus, "tokenizer": tokenizer}, files, depth=1)
    for one in (corpus, tokenizer, record):
        save_record(folder, one)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# a model\n")
    (folder / "recipe.yaml").write_text("name: toy\n")
    write_json(folder / "metrics.json", [])
    return close(folder, record), record


def rewrite(path: Path, change: dict[str, Any]) -> None:
    """Change keys of a JSON file, as somebody who tampers would: the digest of a record is made anew."""
    values = json.loads(path.read_bytes())
    values.pop("digest", None)
    values |= change
    if "provenance" in path.parts:
        values["digest"] = digest(values)
    write_json(path, values)
