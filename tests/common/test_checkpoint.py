"""Checkpoints: whole or not there, checked before use, the newest good one wins, also after a kill at any write."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.errors import Damaged, StageError, StoreError
from stages.common.checkpoint import check_identity, newest_checkpoint, save_checkpoint

PARTS = ["model", "optimizer"]
ROOT = Path(__file__).resolve().parents[2]


def save(root, step, keep=2, **state):
    tensors = {"weight": torch.full((4, 3), float(step)), "step": torch.tensor(step)}
    return save_checkpoint(root, step, parts=dict.fromkeys(PARTS, tensors), state=state, keep=keep)


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path, 7, rows_done=70)
    found = newest_checkpoint(tmp_path, parts=PARTS)
    assert (found.step, found.state["rows_done"], found.passed_over) == (7, 70, [])
    assert torch.equal(found.tensors("optimizer")["weight"], torch.full((4, 3), 7.0))
    assert found.tensors("model")["step"].item() == 7


def test_an_empty_or_missing_folder_has_none(tmp_path):
    assert newest_checkpoint(tmp_path, parts=PARTS) is None
    assert newest_checkpoint(tmp_path / "nowhere", parts=PARTS) is None


def test_the_last_k_are_kept(tmp_path):
    for step in (1, 2, 3, 12, 100_000_000):
        save(tmp_path, step, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000012", "step-100000000"]


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 3, note="old")
    save(tmp_path, 3, note="new")
    assert newest_checkpoint(tmp_path, parts=PARTS).state["note"] == "new"


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "flipped": flip_a_byte,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, name, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    DAMAGE[damage](newest / name)
    if name == "manifest.json" and damage == "flipped":
        (newest / name).write_text("{")
    found = newest_checkpoint(tmp_path, parts=PARTS)
    assert found.step == 1
    assert len(found.passed_over) == 1
    assert found.passed_over[0].startswith("step-00000002")


def test_when_all_are_damaged_training_does_not_start_over_in_silence(tmp_path):
    flip_a_byte(save(tmp_path, 1) / "model.safetensors")
    with pytest.raises(Damaged, match="no checkpoint can be used"):
        newest_checkpoint(tmp_path, parts=PARTS)


def test_a_checkpoint_without_a_part_is_refused(tmp_path):
    save_checkpoint(tmp_path, 1, parts={"model": {"weight": torch.ones(2)}}, state={})
    with pytest.raises(Damaged, match=r"has no optimizer\.safetensors"):
        newest_checkpoint(tmp_path, parts=PARTS)


def test_another_training_is_refused_by_the_field_that_differs(tmp_path):
    save(tmp_path, 1, identity={"learning_rate": 0.02, "tokenizer": "aaa", "seed": 1})
    found = newest_checkpoint(tmp_path, parts=PARTS)
    check_identity(found, {"learning_rate": 0.02, "tokenizer": "aaa", "seed": 1})
    with pytest.raises(StageError, match=r"learning_rate: 0\.02 -> 0\.01, tokenizer: 'aaa' -> 'bbb'"):
        check_identity(found, {"learning_rate": 0.01, "tokenizer": "bbb", "seed": 1})


KILL_AT_CALL = """
import os, signal, sys, shutil, json
sys.path.insert(0, {root!r})
import torch
from pathlib import Path
from stages.common.checkpoint import save_checkpoint
calls, at = 0, int(sys.argv[2])
def dying(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for module, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (shutil, "rmtree")):
    setattr(module, name, dying(getattr(module, name)))
tensors = {{"weight": torch.full((4, 3), 3.0)}}
save_checkpoint(Path(sys.argv[1]), 3, parts={{"model": tensors, "optimizer": tensors}}, state={{}}, keep=2)
print(calls)
"""


@pytest.mark.slow
def test_sigkill_at_each_write_leaves_the_old_or_the_new_checkpoint(tmp_path):
    script = KILL_AT_CALL.format(root=str(ROOT))
    steps, at = [], 0
    while True:
        at += 1
        root = tmp_path / str(at)
        save(root, 1)
        save(root, 2)
        done = subprocess.run([sys.executable, "-c", script, str(root), str(at)], capture_output=True, text=True)
        steps.append(newest_checkpoint(root, parts=PARTS).step)
        save(root, 4)  # the next save clears what the kill left
        assert newest_checkpoint(root, parts=PARTS).step == 4
        assert not list(root.glob(".*"))
        if done.returncode == 0:
            assert at > int(done.stdout)
            break
    assert at > 8
    assert steps == sorted(steps)
    assert set(steps) == {2, 3}


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            save(tmp_path, 2)
    assert newest_checkpoint(tmp_path, parts=PARTS).step == 1


def test_files_are_safetensors_and_json_only(tmp_path):
    names = {path.name for path in save(tmp_path, 1).iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert json.loads((tmp_path / "step-00000001" / "state.json").read_text())["step"] == 1
