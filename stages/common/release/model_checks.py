"""What a model folder from elsewhere must be before it is loaded: weights that are whole, a config and a tokenizer that fit,
and nothing that asks for its own code to be run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"
PIPELINE_INDEX = "model_index.json"
TOKENIZER = "tokenizer.json"
INDEX_SUFFIX = ".safetensors.index.json"
_TOKENIZER_FILES = (TOKENIZER, "tokenizer.model", "vocab.json")
_CODE_KEYS = ("auto_map", "custom_pipelines")
_LIBRARIES = frozenset({"diffusers", "transformers"})
OWN_CLASSES = "stages."
"""Classes of our own are named by their module in this checkout."""


def model_problems(folder: Path, *, own: bool) -> list[str]:
    """Return what is wrong with the saved model under `folder`, one sentence each.

    Args:
        folder: of the model.
        own: Groundup published it, so a pipeline may name classes of this checkout.
    """
    problems, values = [], {}
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        try:
            values[name] = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            problems.append(f"{name} is no JSON")
            continue
        problems += [f"{name} asks for code of its own ('{key}')" for key in sorted(set(_code_keys(values[name])))]
        if name.endswith(INDEX_SUFFIX):
            problems += _index_problems(path.parent, name, values[name])
    if isinstance(index := values.get(PIPELINE_INDEX), dict):
        problems += _pipeline_problems(index, own=own)
    problems += [line for path in sorted(folder.rglob("*.safetensors")) if (line := _weights_problem(folder, path))]
    return problems + _tokenizer_problems(folder, values.get(CONFIG))


def base_problems(folder: Path) -> list[str]:
    """Return why the model under `folder` cannot be the base of a fine-tuning, one sentence each."""
    if (folder / ADAPTER_CONFIG).exists():
        return [f"it is a LoRA adapter for {adapter_base(folder)}, not a model; name that model, or the adapter's merged model"]
    if (folder / PIPELINE_INDEX).exists():
        return ["it is a pipeline of diffusers, not a language model"]
    problems = [] if (folder / CONFIG).exists() else [f"{CONFIG} is missing"]
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        problems.append(f"it has no tokenizer ({' or '.join(_TOKENIZER_FILES)})")
    return problems


def adapter_base(folder: Path) -> str:
    """Return the name of the base that the adapter under `folder` was made for, for people."""
    try:
        values = json.loads((folder / ADAPTER_CONFIG).read_bytes())
        return str(values.get("base_model_name_or_path") or "an unnamed base")
    except (OSError, ValueError, RecursionError, AttributeError):
        return "an unnamed base"


def _code_keys(value: Any) -> Iterator[str]:
    """Yield what asks for code, however deep it lies (a hostile file may be deeper than Python's stack)."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            yield from (key for key in _CODE_KEYS if one.get(key))
            pending += one.values()
        elif isinstance(one, list):
            pending += one


def _pipeline_problems(index: dict[str, Any], *, own: bool) -> list[str]:
    """A class is [library, name]; a pipeline class given as such a pair, or of another library, would be code to fetch."""
    problems = []
    for key, value in index.items():
        if not isinstance(value, list):
            continue
        library = str(value[0]) if value else ""
        known = library in _LIBRARIES or (own and library.startswith(OWN_CLASSES)) or value == [None, None]
        if key == "_class_name" or not known:
            problems.append(f"{PIPELINE_INDEX} asks for code of its own ('{key}': {value})")
    return problems


def _index_problems(folder: Path, name: str, values: Any) -> list[str]:
    """A sharded model names its files; a name with a path would be read from elsewhere."""
    shards = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(shards, dict):
        return [f"{name} has no weight_map"]
    names = sorted({str(shard) for shard in shards.values()})
    return [f"{name} names {shard!r}, which is no file beside it" for shard in names if shard not in _names_in(folder)]


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def _weights_problem(folder: Path, path: Path) -> str | None:
    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        return f"{path.relative_to(folder).as_posix()} is damaged ({str(error).splitlines()[0]})"
    return None


def _tokenizer_problems(folder: Path, config: Any) -> list[str]:
    path = folder / TOKENIZER
    if not path.exists():
        return []
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises this very class
        return [f"{TOKENIZER} cannot be read ({str(error).splitlines()[0]})"]
    rows = _vocab_size(config)
    size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if rows is not None and size > rows:
        return [
            f"the tokenizer has ids up to {size - 1}, the model has rows for {rows} (vocab_size): they do not belong together"
        ]
    return []


def _vocab_size(config: Any) -> int | None:
    if not isinstance(config, dict):
        return None
    nested = config.get("text_config")
    found = config.get("vocab_size", nested.get("vocab_size") if isinstance(nested, dict) else None)
    return found if isinstance(found, int) else None
