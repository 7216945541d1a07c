"""The trained model on disk as transformers loads it, and the proof that what was saved is what was trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel

from pipeline.contract import write_json
from pipeline.errors import StageError
from stages.common.causal_lm import load_causal_lm, load_tokenizer

PROBE = "model_probe.json"
RELOAD_TOLERANCE = 1e-5
"""Largest difference of a logit between the trained and the reloaded model (float32 on CPU; in practice 0)."""


def save_model(model: PreTrainedModel, tokenizer_folder: Path, directory: Path) -> float:
    """Write `model/` and `model_probe.json` into `directory`, load it back, and return the largest difference of a logit.

    The probe holds some input ids and the logits that training had for the last of them, so that any process can check
    its copy of the model.

    Raises:
        StageError: the reloaded model differs.
    """
    folder = directory / "model"
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
        do_sample=True,
        temperature=0.8,
        top_k=50,
    )
    model.save_pretrained(folder)
    for path in sorted(tokenizer_folder.iterdir()):
        shutil.copyfile(path, folder / path.name)
    load_tokenizer(folder)
    input_ids = probe_ids(model)
    trained = logits_of(model, input_ids)
    reloaded = logits_of(load_causal_lm(folder), input_ids)
    difference = float((trained - reloaded).abs().max())
    if not difference <= RELOAD_TOLERANCE * max(1.0, float(trained.abs().max())):
        raise StageError(f"the saved model gives other logits than the trained one (difference {difference:.3g})")
    write_json(directory / PROBE, {"input_ids": input_ids.tolist(), "last_logits": trained[:, -1].tolist()})
    return difference


def probe_ids(model: PreTrainedModel, length: int = 16) -> torch.Tensor:
    """Return ids to compare models with, int64 (1, length), spread over the vocabulary."""
    vocab_size, positions = model.config.vocab_size, model.config.max_position_embeddings
    return (torch.arange(min(length, positions)) * 7919 % vocab_size)[None]


@torch.no_grad()
def logits_of(model: PreTrainedModel, input_ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of `model` in float32 on CPU; training precision and device do not matter for this check."""
    was_training, device = model.training, model.device
    logits: torch.Tensor = model.cpu().eval()(input_ids=input_ids, use_cache=False).logits.float()
    model.to(device).train(was_training)
    return logits
