"""Adapter and merged model on disk, written only when they give the logits that training had.

Three proofs, in float32 on the CPU: merging changes no logit; the merged model, and the base with the adapter, give the
same logits when a fresh process loads them with stock classes and no network; the base is bit for bit what it was.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pipeline.errors import StageError
from stages.common.lora import base_sha256, folder_sha256, merge, save_adapter
from stages.common.reload import PARITY_TOLERANCE, fresh_logits, logits_difference, logits_of
from stages.text.finetune.base import Base


@dataclass(frozen=True)
class Export:
    """What was written, and how closely the parts agree.

    Attributes:
        parity: largest difference of logits from the trained model, as a share of their spread, for each way to load.
        adapter_mib, merged_mib: sizes on disk, MiB.
    """

    parity: dict[str, float]
    adapter_mib: float
    merged_mib: float


def export(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, base: Base, directory: Path, *, sha256_before: str, probe: Tensor
) -> Export:
    """Write `adapter/` and `merged/` into `directory`; `model` is merged in place and must not be used afterwards.

    Args:
        model: the trained model.
        tokenizer: saved beside the merged model.
        base: what it was trained on.
        directory: of the artifact.
        sha256_before: `base_sha256` of the model before training.
        probe: ids to compare logits on, int64 (B, L).

    Raises:
        StageError: the base was changed, or the logits differ; then nothing is left behind.
    """
    model = model.to(device="cpu", dtype=torch.float32).eval()
    check_base_unchanged(model, base, sha256_before)
    adapter, merged = directory / "adapter", directory / "merged"
    trained = logits_of(model, probe)
    try:
        save_adapter(model, adapter, base.identity)
        plain = merge(model)
        parity = {"merged in memory": logits_difference(trained, logits_of(plain, probe))}
        check_parity(parity)
        plain.save_pretrained(merged)
        tokenizer.save_pretrained(merged)
        fresh = fresh_logits([(merged, None), (base.folder, adapter)], probe)
        names = ("merged, loaded in a fresh process", "base and adapter, loaded in a fresh process")
        parity |= {name: logits_difference(trained, logits) for name, logits in zip(names, fresh, strict=True)}
        check_parity(parity)
    except StageError:
        for folder in (adapter, merged):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return Export(parity=parity, adapter_mib=_mib(adapter), merged_mib=_mib(merged))


def check_base_unchanged(model: PeftModel, base: Base, sha256_before: str) -> None:
    """Prove that training left the base alone, in memory and on disk.

    Raises:
        StageError: it did not.
    """
    if base_sha256(model) != sha256_before:
        raise StageError("the base's tensors changed during training, though they are frozen; nothing was saved")
    if folder_sha256(base.folder) != base.identity.tensors_sha256:
        raise StageError(f"the files of the base ({base.identity.name}) changed while it was being fine-tuned; run again")


def check_parity(differences: dict[str, float]) -> None:
    """Refuse a model whose logits are not those of the trained one.

    Raises:
        StageError: names the way of loading and the difference.
    """
    for name, difference in differences.items():
        if not difference <= PARITY_TOLERANCE:
            raise StageError(
                f"{name}: logits differ from the trained model by {difference:.2g} of their spread (at most "
                f"{PARITY_TOLERANCE:g} is rounding); nothing was saved. Check target_modules for tied weights"
            )


def _mib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
