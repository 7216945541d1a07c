"""Proof that a saved model loads where it will be used: in a fresh process, with stock classes and without a network.

The child (`python -m stages.common.reload REQUEST.json`) calls nothing of ours to load a model: only `from_pretrained`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import StageError

PARITY_TOLERANCE = 1e-4
"""Largest difference of two models' float32 logits that counts as rounding, as a share of the logits' spread."""

_PROJECT = Path(__file__).resolve().parents[2]


def fresh_logits(loads: Sequence[tuple[Path, Path | None]], input_ids: Tensor, *, timeout_seconds: float = 600) -> list[Tensor]:
    """Load each (model folder, adapter folder or None) in one fresh process without network; return their logits.

    Args:
        loads: what to load, one after another; a folder with a tokenizer must give that too.
        input_ids: ids to run, int64 (B, L).
        timeout_seconds: when to give up.

    Returns:
        float32 logits (B, L, V) of each.

    Raises:
        StageError: something does not load there.
    """
    with tempfile.TemporaryDirectory(prefix="groundup-") as temporary:
        folder = Path(temporary)
        save_file({"input_ids": input_ids.cpu().contiguous()}, folder / "input.safetensors")
        values = {"loads": [[str(path.resolve()) for path in pair if path] for pair in loads], "threads": torch.get_num_threads()}
        (folder / "request.json").write_text(json.dumps(values), encoding="utf-8")
        command = [sys.executable, "-m", "stages.common.reload", str(folder)]
        try:
            done = subprocess.run(
                command, cwd=_PROJECT, env=_environment(), capture_output=True, text=True, timeout=timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise StageError(f"the saved model did not load in a fresh process within {timeout_seconds:.0f} s") from None
        if done.returncode:
            tail = (done.stderr.strip() or "no message").splitlines()[-1]
            raise StageError(f"the saved model does not load in a fresh process without network: {tail}")
        return [load_file(folder / f"output-{index}.safetensors")["logits"] for index in range(len(loads))]


@torch.no_grad()
def logits_of(model: torch.nn.Module, input_ids: Tensor) -> Tensor:
    """Return the float32 logits (B, L, V) of `model` on the device that it is on, copied to the CPU."""
    device = next(model.parameters()).device
    return model(input_ids=input_ids.to(device), use_cache=False).logits.float().cpu()


def logits_difference(expected: Tensor, found: Tensor) -> float:
    """Return max |found - expected| over the standard deviation of `expected`; infinite when a value is not finite."""
    if expected.shape != found.shape or not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - expected).abs().max()) / max(float(expected.std()), 1e-12)


def _environment() -> dict[str, str]:
    # One process on the CPU, whatever launched us.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "RANK", "WORLD_SIZE"))}
    return inherited | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def _forbid_network() -> None:
    def refuse(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            raise OSError("loading a saved model must not use the network")

    sys.addaudithook(refuse)


def _main(folder: Path) -> None:
    _forbid_network()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    request = json.loads((folder / "request.json").read_bytes())
    torch.set_num_threads(request["threads"])
    input_ids = load_file(folder / "input.safetensors")["input_ids"]
    for index, (model_folder, *adapter_folder) in enumerate(request["loads"]):
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
        if (Path(model_folder) / "tokenizer_config.json").exists():
            AutoTokenizer.from_pretrained(model_folder)
        if adapter_folder:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter_folder[0]).eval()
        save_file({"logits": logits_of(model, input_ids)}, folder / f"output-{index}.safetensors")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
