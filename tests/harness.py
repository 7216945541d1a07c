"""Run one stage without the engine's processes: `artifact = run_stage("stages.text.corpus", tmp_path, {...})`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact, InputEntry, Record, digest, manifest
from pipeline.contract import Context


def make_context(directory: Path, inputs: Mapping[str, Artifact | list[Artifact]] | None = None, **options: Any) -> Context:
    """Return a Context that writes into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    lists = {role: value if isinstance(value, list) else [value] for role, value in (inputs or {}).items()}
    return Context(directory, lists, **options)


def commit(stage: str, config: Any, context: Context) -> Artifact:
    """Close `context` and give its directory a record, as the engine's worker does (without locks and renames)."""
    context.finish()
    identity = {"stage": stage, "config": config.model_dump(mode="json")}
    inputs = {
        role: [InputEntry(stage=a.record.stage, fingerprint=a.fingerprint) for a in artifacts]
        for role, artifacts in context._inputs.items()
    }
    record = Record(
        name=stage.rpartition(".")[2],
        stage=stage,
        produces=config.produces,
        fingerprint=digest([identity, {role: [e.fingerprint for e in entries] for role, entries in inputs.items()}]),
        identity=identity,
        inputs=inputs,
        files=manifest(context.directory),
        metrics=context._metrics,
        provenance={},
    )
    record.save(context.directory)
    return Artifact.open(context.directory)


def run_stage(
    stage: str,
    directory: Path,
    values: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Artifact | list[Artifact]] | None = None,
    **options: Any,
) -> Artifact:
    """Validate `values` as the stage's Config, run it in this process, and return its artifact."""
    config = importlib.import_module(f"{stage}.config").Config.parse(values or {}, where=stage)
    context = make_context(directory, inputs, **options)
    importlib.import_module(f"{stage}.run").run(config, context)
    return commit(stage, config, context)
