"""Causal language models on disk: where an artifact keeps its model, and loading that refuses half a model.

`from_pretrained` fills weights that a file lacks with random numbers and only warns; here that is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.artifact import Artifact
from pipeline.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def model_folder(artifact: Artifact) -> Path:
    """Return the folder of `artifact` that loads with `AutoModelForCausalLM`: `merged/` if it has one, else `model/`."""
    for name in ("merged", "model"):
        if (artifact / name / "config.json").exists():
            return artifact / name
    raise DataError(f"{artifact.record.stage} {artifact.fingerprint[:8]} holds no model: neither merged/ nor model/ is there")


def load_causal_lm(
    source: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = True,
    revision: str = "main",
) -> PreTrainedModel:
    """Load the causal LM in a folder (or the Hub repository `owner/name` at `revision`), in evaluation mode.

    Safetensors only, no code of the repository is run. A path is never looked up on the Hub.

    Raises:
        DataError: there is no such model, or its weights do not fit its config (missing, surplus or misshapen tensors).
    """
    where = _existing(source)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            where,
            dtype=dtype,
            revision=revision,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are listed below, with the rest, as one error
            local_files_only=offline or isinstance(source, Path),
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise DataError(f"model {source}: {str(error).splitlines()[0]}") from None
    problems = [f"{kind.replace('_', ' ')}: {_names(info[kind])}" for kind in _REFUSED if info.get(kind)]
    if problems:
        raise DataError(f"model {source}: the weights do not fit the config ({'; '.join(problems)})")
    return model.to(device).eval()


def load_tokenizer(source: Path | str, *, offline: bool = True, revision: str = "main") -> PreTrainedTokenizerBase:
    """Load the tokenizer in a folder or Hub repository; raises DataError when there is none."""
    local = offline or isinstance(source, Path)
    try:
        return AutoTokenizer.from_pretrained(
            _existing(source), revision=revision, local_files_only=local, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise DataError(f"tokenizer {source}: {str(error).splitlines()[0]}") from None


def max_positions(model: PreTrainedModel) -> int | None:
    """Return how many positions the model was built for, None when its config sets no bound."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None)


def vocab_rows(model: PreTrainedModel) -> int:
    """Return the number of rows of the input embedding: every token id must be below it."""
    return int(model.get_input_embeddings().weight.shape[0])


_REFUSED = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def _existing(source: Path | str) -> str:
    if isinstance(source, Path) and not source.is_dir():
        raise DataError(f"'{source}' is no folder; give the folder of a saved model")
    return str(source)


def _names(values: object, limit: int = 5) -> str:
    names = sorted(value if isinstance(value, str) else str(value[0]) for value in values)  # type: ignore[attr-defined]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
