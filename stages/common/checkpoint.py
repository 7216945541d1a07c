"""Checkpoints that survive a kill at any moment and are checked before they are trusted.

A checkpoint is a directory `step-NNNNNNNN` of safetensors files and one `state.json` (no pickle). It is written under
another name, every file is fsynced, `manifest.json` with the sha256 of each file comes last, then one rename. On resume
the newest complete and undamaged one is taken; those that are passed over are named with the reason.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.contract import fsync_directory, fsync_tree, sha256_file, write_json
from pipeline.errors import Damaged, StageError, StoreError

_NAME = re.compile(r"step-(\d{8,})")
_MANIFEST, _STATE = "manifest.json", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole.

    Attributes:
        step: updates done when it was saved.
        state: what `save_checkpoint` was given.
        path: its directory.
        passed_over: newer checkpoints that could not be used, one sentence each.
    """

    step: int
    state: dict[str, Any]
    path: Path
    passed_over: list[str] = field(default_factory=list)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of part `name`, on CPU."""
        return load_file(self.path / f"{name}.safetensors")


def save_checkpoint(
    root: Path, step: int, *, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Save a checkpoint under `root` and delete all but the newest `keep`; at any moment one whole checkpoint exists.

    Args:
        root: directory of all checkpoints.
        step: updates done; names the directory.
        parts: file name without suffix -> tensors (`model`, `optimizer`, ...).
        state: JSON values: data position, identity of the training.
        keep: how many to keep, at least 1.

    Raises:
        StoreError: the disk is full or cannot be written; the earlier checkpoints are untouched.
    """
    final, temporary = root / f"step-{step:08d}", root / f".step-{step:08d}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _write(temporary, step, parts=parts, state=state)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        fsync_directory(root)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(f"{final}: the checkpoint cannot be saved ({error.strerror}); make room and run again") from None
    for _, old in _found(root)[max(1, keep) :]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write(temporary: Path, step: int, *, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    for leftover in temporary.parent.glob(".step-*.partial"):
        shutil.rmtree(leftover)
    temporary.mkdir()
    for name, tensors in parts.items():
        save_file({key: _plain(tensor) for key, tensor in tensors.items()}, temporary / f"{name}.safetensors")
    write_json(temporary / _STATE, {"step": step, **state})
    fsync_tree(temporary)
    files = sorted(temporary.iterdir())
    manifest = {path.name: {"sha256": sha256_file(path), "size": path.stat().st_size} for path in files}
    write_json(temporary / _MANIFEST, manifest)


def newest_checkpoint(root: Path, *, parts: Sequence[str]) -> Checkpoint | None:
    """Return the newest checkpoint under `root` that is complete, undamaged and has all `parts`; None if there is none.

    Raises:
        Damaged: there are checkpoints, and none of them can be used. Training from the start in silence would hide it.
    """
    passed_over: list[str] = []
    for step, path in _found(root):
        try:
            state = _verified(path, [f"{part}.safetensors" for part in parts])
        except Damaged as error:
            passed_over.append(str(error))
            continue
        return Checkpoint(step=step, state=state, path=path, passed_over=passed_over)
    if passed_over:
        raise Damaged(f"{root}: no checkpoint can be used: {'; '.join(passed_over)}. Run again with --force to start anew")
    return None


def check_identity(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another training.

    Raises:
        StageError: names every value of `identity` that differs (learning rate, data, tokenizer, shape...).
    """
    saved = checkpoint.state.get("identity", {})
    keys = sorted(key for key in {*saved, *identity} if saved.get(key) != identity.get(key))
    if keys:
        changes = ", ".join(f"{key}: {saved.get(key)!r} -> {identity.get(key)!r}" for key in keys)
        raise StageError(f"{checkpoint.path.name} belongs to another training ({changes}); run again with --force to start anew")


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _found(root: Path) -> list[tuple[int, Path]]:
    if not root.is_dir():
        return []
    matches = [(match, path) for path in root.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(((int(match[1]), path) for match, path in matches), reverse=True)


def _verified(path: Path, required: Sequence[str]) -> dict[str, Any]:
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        for name in [_STATE, *required]:
            if name not in manifest:
                raise Damaged(f"{path.name} has no {name}")
        for name, entry in manifest.items():
            if not (path / name).is_file():
                raise Damaged(f"{path.name} lacks {name}")
            if (path / name).stat().st_size != entry["size"] or sha256_file(path / name) != entry["sha256"]:
                raise Damaged(f"{path.name}/{name} is not what was saved")
        state: dict[str, Any] = json.loads((path / _STATE).read_bytes())
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise Damaged(f"{path.name} cannot be read ({type(error).__name__})") from None
    return state
