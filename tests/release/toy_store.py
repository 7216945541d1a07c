"""A store of toy artifacts, written by hand in milliseconds: a corpus, a tokenizer, a model, its fine-tuning and an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from safetensors.numpy import save_file

from pipeline.artifact import Artifact, InputEntry, Record, manifest

HOST = "nameless-host-7"
CARD = {
    "name": "wiki-summaries",
    "license": "cc-by-sa-4.0",
    "use": {"sources": [{"package": {"registry": "pypi", "name": "some-package", "version": "1.2", "sha256": "ab" * 32}}]},
}


def put(
    root: Path,
    stage: str,
    digits: str,
    produces: str,
    files: dict[str, str | bytes] | None = None,
    *,
    name: str | None = None,
    inputs: dict[str, list[Artifact]] | None = None,
    metrics: list[dict[str, Any]] | None = None,
    **identity: Any,
) -> Artifact:
    """Write an artifact into the store at `root`; `identity` takes config, sources, code."""
    path = root / "artifacts" / stage.removeprefix("stages.") / digits
    for file, content in (files or {}).items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    path.mkdir(parents=True, exist_ok=True)
    (path / "machine.json").write_text(
        json.dumps({"host": HOST, "processor": "Toy CPU (2 cores)", "processes": 1, "gpu_ids": []})
    )
    entries = {
        role: [InputEntry(stage=one.record.stage, fingerprint=one.fingerprint) for one in ones]
        for role, ones in (inputs or {}).items()
    }
    record = Record(
        name=name or stage.rpartition(".")[2],
        stage=stage,
        produces=produces,
        fingerprint=digits.ljust(64, "0"),
        identity={"stage": stage, "config": {}, "sources": []} | identity,
        inputs=entries,
        files=manifest(path),
        metrics=metrics or [],
        provenance={
            "commit": "c0ffee",
            "versions": {"torch": "2.0"},
            "finished": "2026-01-01T00:00:00+00:00",
            "wall_seconds": 7.0,
        },
    )
    record.save(path)
    return Artifact.open(path)


def measure(name: str, value: float, split: str | None = "test", **extra: Any) -> dict[str, Any]:
    """Return one row of metrics."""
    return {"name": name, "value": value, "unit": "bit/byte", "higher_is_better": False, "n": 5, "split": split} | extra


def corpus(
    root: Path, digits: str = "c0000001", *, licence: str = "cc-by-sa-4.0", own: bool = False, name: str = "corpus"
) -> Artifact:
    """Return a corpus out of a card, or out of the user's own files."""
    path = root / "artifacts" / "text.corpus" / digits
    splits = {
        split: [f"{split} {i}: somebody@example.org wrote /home/ada/x" for i in range(5)]
        for split in ("train", "validation", "test")
    }
    DatasetDict({split: Dataset.from_dict({"text": rows}) for split, rows in splits.items()}).save_to_disk(str(path / "data"))
    facts = {"license": licence, "name": "your own files" if own else CARD["name"]}
    sources = [{"files": [[".txt", "00" * 32]]}] if own else [{"card": CARD}]
    rows = [measure("documents", 5, split, unit="documents") for split in splits]
    files = {"statistics.json": json.dumps(facts), "card.md": "---\nlicense: x\n---\n# What the stage says of the data\n"}
    return put(root, "stages.text.corpus", digits, "corpus", files, name=name, metrics=rows, sources=sources)


def model_files(folder: str) -> dict[str, str | bytes]:
    """Return files as a saved language model has them."""
    from safetensors.numpy import save

    return {
        f"{folder}/config.json": json.dumps({"model_type": "gpt2", "vocab_size": 8}),
        f"{folder}/generation_config.json": "{}",
        f"{folder}/model.safetensors": save({"weight": np.arange(4, dtype=np.float32)}),
        f"{folder}/tokenizer.json": json.dumps({"model": {"vocab": {"me@example.org": 1}}}),
        f"{folder}/tokenizer_config.json": json.dumps({"bos_token": "<|endoftext|>"}),
        f"{folder}/README.md": "# the stage's own words\n",
    }


def pretrained(
    root: Path, data: Artifact, digits: str = "b0000001", *, caption: str = "The loss falls.", **config: Any
) -> Artifact:
    """Return a pretrained model with its tokenizer in the store."""
    tokenizer = put(
        root, "stages.text.tokenizer", "70000001", "tokenizer", {"tokenizer/tokenizer.json": "{}"}, inputs={"corpus": [data]}
    )
    figure = {"kind": "figure", "path": "figures/loss.svg", "caption": caption}
    section = {"blocks": [figure, {"kind": "facts", "title": "Model", "values": {"width": 128}}]}
    files = model_files("model") | {"figures/loss.svg": "<svg/>", "section.json": json.dumps(section)}
    return put(
        root,
        "stages.text.pretrain",
        digits,
        "causal_lm",
        files,
        inputs={"corpus": [data], "tokenizer": [tokenizer]},
        metrics=[
            measure("bits_per_byte", 1.5, interval=[1.4, 1.6]),
            measure("training_flops", 2e12, None, unit="FLOP"),
            measure("num_parameters", 1000, None, unit="1"),
        ],
        config={"depth": 4, "learning_rate": 0.02} | config,
    )


def finetuned(
    root: Path, base: Artifact | None, data: Artifact, digits: str = "f0000001", *, identity: dict[str, Any] | None = None
) -> Artifact:
    """Return a fine-tuning of `base`, or of what `identity` names elsewhere: an adapter and a merged model."""
    named = identity or {"name": "pretrain:b0000001", "tensors_sha256": "ee" * 32, "revision": None}
    bound = {"base_model_name_or_path": named["name"], "revision": named["revision"], "r": 4}
    adapter = {
        "adapter/adapter_config.json": json.dumps(bound),
        "adapter/groundup_base.json": json.dumps(named),
        "card.md": "---\nlicense: other\nlicense_name: cc-by-4.0 and not stated\n---\n# combined\n",
    }
    path = root / "adapter.safetensors"
    save_file({"lora": np.ones(2, dtype=np.float32)}, path)
    files = model_files("merged") | adapter | {"adapter/adapter_model.safetensors": path.read_bytes()}
    inputs = {"corpus": [data]} | ({"base": [base]} if base else {})
    return put(root, "stages.text.finetune", digits, "causal_lm", files, inputs=inputs, config={"r": 4})


def evaluated(
    root: Path, model: Artifact, data: Artifact, digits: str = "e0000001", value: float = 1.25, **identity: Any
) -> Artifact:
    """Return an evaluation of `model`."""
    rows = [measure("perplexity", value, "validation", unit="1", n=77)]
    return put(
        root,
        "stages.text.evaluate",
        digits,
        "evaluation",
        {},
        inputs={"model": [model], "corpus": [data]},
        metrics=rows,
        **identity,
    )


def compared(
    root: Path,
    data: Artifact,
    trainings: dict[str, list[Artifact]],
    digits: str = "90000001",
    *,
    finished: str = "2026-01-01T00:00:00+00:00",
    **inputs: list[Artifact],
) -> Artifact:
    """Return a comparison: label -> trainings of one setting; the training at place i gave i + 1 alone, which is its seed too."""
    rows = [
        measure(
            "bits_per_byte",
            sum(range(1, len(ones) + 1)) / len(ones),
            n=len(ones),
            items="seeds",
            label=label,
            title="bits",
            interval=[0.0, 9.0],
            of=[
                {"artifact": one.fingerprint, "seed": seed, "value": float(seed), "n": 500, "items": "texts"}
                | {"interval": [seed - 0.25, seed + 0.25]}
                for seed, one in enumerate(ones, 1)
            ],
        )
        for label, ones in trainings.items()
    ]
    rows.append(measure("claims_that_hold", 1, None))
    models = [one for ones in trainings.values() for one in ones]
    given = {"corpus": [data], "models": models} | inputs
    made = put(root, "stages.toy.compare", digits, "comparison", {}, inputs=given, metrics=rows)
    record = made.record.model_copy(update={"provenance": made.record.provenance | {"finished": finished}})
    record.save(made.path)
    return Artifact.open(made.path)


def note_run(root: Path, model: Artifact, text: str = "name: toy\n", command: str = "groundup run toy.yaml") -> None:
    """Note a run of a recipe, as the engine does."""
    folder = root / "runs" / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    nodes = {"pretrain": {"fingerprint": model.fingerprint}}
    (folder / "run.json").write_text(json.dumps({"recipe_text": text, "command": command, "nodes": nodes}))


def texts_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file under `folder`."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
