"""From a folder to a model that can speak: an artifact of pretrain or finetune, or a folder of a saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import DataError
from stages.common.causal_lm import load_causal_lm, load_tokenizer

Part = Literal["merged", "adapter", "model"]
_ADAPTER = "adapter_config.json"
PARTS: tuple[Part, ...] = ("merged", "model", "adapter")


def load(folder: Path, *, part: Part | None = None, base: Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer.

    Args:
        folder: an artifact, a folder that `from_pretrained` takes, or that of a published adapter.
        part: which part of an artifact; None takes merged/, then model/, then adapter/.
        base: folder of the base under an adapter; None looks in the store beside the artifact.

    Raises:
        DataError: there is no such part, or the adapter belongs to another base.
    """
    if not folder.is_dir():
        raise DataError(f"'{folder}' is no folder; give an artifact, such as runs/quickstart/finetune")
    if part is None and (folder / "config.json").exists():
        return load_causal_lm(folder), load_tokenizer(folder)
    if part is None and (folder / _ADAPTER).exists():
        return _load_adapter(folder, base or _base_of(folder))
    chosen = part or next((name for name in PARTS if _has(folder, name)), None)
    if chosen is None or not _has(folder, chosen):
        found = [name for name in PARTS if _has(folder, name)]
        raise DataError(f"'{folder}' has no {chosen or 'model'}: it holds {', '.join(found) if found else 'no part of a model'}")
    if chosen != "adapter":
        return load_causal_lm(folder / chosen), load_tokenizer(folder / chosen)
    return _load_adapter(folder / chosen, base or _base_of(folder))


def _load_adapter(folder: Path, base: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from stages.common.lora import load_adapter  # peft takes a second to import and is needed for this part only

    model = load_adapter(base, folder)
    return model, load_tokenizer(base)  # type: ignore[return-value]  # a PeftModel has all that we use of it


def _has(folder: Path, part: str) -> bool:
    return (folder / part / (_ADAPTER if part == "adapter" else "config.json")).exists()


def _base_of(folder: Path) -> Path:
    """Find the base of a finetune artifact through its record: artifacts of one store lie beside each other."""
    try:
        (entry,) = json.loads((folder / "record.json").read_bytes())["inputs"]["base"]
        name, fingerprint = entry["stage"].removeprefix("stages."), entry["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"'{folder}' does not say where the base of its adapter lies; give it with --base FOLDER") from None
    shelf = folder.resolve().parent.parent / name
    for artifact in (shelf / fingerprint, shelf / fingerprint[:8]):
        for part in ("merged", "model"):
            if _has(artifact, part):
                return artifact / part
    raise DataError(f"the base of the adapter ({name} {fingerprint[:8]}) is not in this store; give it with --base FOLDER")
