"""Two processes of half a batch train as one process of the whole: same images, same noise, same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.image.digits import toy_artifact

ROOT = Path(__file__).resolve().parents[2]
VALUES = {"budget_tflop": 2e-7, "batch_size": 8, "num_samples": 20, "num_likelihood_images": 10, "seed": 3}


def train(directory: Path, images: Path, *, num_processes: int) -> subprocess.CompletedProcess[str]:
    """Train the toy in new processes: plain `python` for one, `accelerate launch` on CPU (gloo) for more."""
    command = [sys.executable, "-m"]
    if num_processes > 1:
        command += ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_processes), "--num_machines", "1"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    command += ["tests.image.toy_family", str(directory), str(images), json.dumps(VALUES)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "RANK", "WORLD"))}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    images = toy_artifact(tmp_path / "images").path
    for name, num_processes in (("one", 1), ("two", 2)):
        done = train(tmp_path / name, images, num_processes=num_processes)
        assert done.returncode == 0, done.stderr[-3000:]
    facts = [json.loads((tmp_path / name / "family.json").read_text()) for name in ("one", "two")]
    assert [fact["num_processes"] for fact in facts] == [1, 2]
    assert facts[0]["flops_per_step"] == facts[1]["flops_per_step"]
    bits = [load_file(tmp_path / name / "likelihood.safetensors")["test"] for name in ("one", "two")]
    torch.testing.assert_close(bits[0], bits[1], rtol=1e-5, atol=1e-6)
    samples = [load_file(tmp_path / name / "samples.safetensors")["1"] for name in ("one", "two")]
    assert (samples[0] != samples[1]).float().mean() < 0.01, "rounding may move a draw, no more"
