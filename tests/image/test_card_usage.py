"""The card of every family says how to draw images with it, and its code does so in a clean process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.common.images.family_report import usage_text
from stages.common.images.grid import load_grid
from tests.image.digits import toy_artifact
from tests.image.tiny_families import CONFIGS, tiny_family

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import os, sys, socket
from pathlib import Path
from safetensors.torch import save_file
def refuse(*_, **__): raise OSError("the network is off")
socket.socket.connect = refuse
for folder in map(Path, sys.argv[1:]):
    os.chdir(folder)
    told = {}
    exec((folder / "usage.py").read_text(), told)
    save_file({"images": told["images"].contiguous().float()}, folder / "drawn.safetensors")
"""


@pytest.mark.slow
def test_the_cards_code_draws_what_the_family_draws(tmp_path):
    grid, families = load_grid(toy_artifact(tmp_path / "images", height=8, width=8)), {}
    for name in CONFIGS:
        families[name] = tiny_family(name, grid)
        families[name].save(tmp_path / name / "model")
        (code,) = re.findall(r"```python\n(.*?)```", usage_text(families[name]), re.DOTALL)
        (tmp_path / name / "usage.py").write_text(code)
    command = [sys.executable, "-c", RUN, *(str(tmp_path / name) for name in families)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, family in families.items():
        drawn = load_file(tmp_path / name / "drawn.safetensors")["images"]
        if name.startswith(("gan", "flow")) and not name.startswith("flow_matching"):
            drawn = (drawn * (grid.levels - 1)).round()  # our own pipelines give numbers in [0, 1], as diffusers' do
        expected = family.sample(16, torch.Generator().manual_seed(0))
        assert drawn.shape == expected.shape, name
        assert (drawn != expected).float().mean() < 0.02, f"{name}: rounding may move a value over a border, no more"
        assert len(expected.unique()) > 1, name


def test_the_card_says_whose_classes_they_are(tmp_path):
    grid = load_grid(toy_artifact(tmp_path / "images", height=8, width=8))
    own = {name for name in CONFIGS if "checkout of Groundup" in usage_text(tiny_family(name, grid))}
    assert own == {"vae", "vae_of_classes", "vae_kl", "gan", "flow_coupling", "flow_autoregressive", "flow_of_classes"}
    for name in CONFIGS.keys() - own:
        assert "Needs diffusers alone" in usage_text(tiny_family(name, grid))
