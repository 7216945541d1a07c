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
from stages.image.diffusion import config as diffusion
from stages.image.diffusion.model import Diffusion
from stages.image.flow import config as flow
from stages.image.flow.model import Flow
from stages.image.flow_matching import config as flow_matching
from stages.image.flow_matching.model import FlowMatching
from stages.image.gan import config as gan
from stages.image.gan.model import GAN
from stages.image.vae import config as vae
from stages.image.vae.model import VAE
from tests.image.digits import toy_artifact

ROOT = Path(__file__).resolve().parents[2]
UNET = {"block_out_channels": (4, 8), "patch_size": 2, "num_sample_steps": 3, "seed": 3}
FLOW = {"hidden_size": 8, "num_transforms": 2, "num_layers": 1, "num_heads": 1, "patch_size": 4, "seed": 3}
CLASSES = {"class_conditional": True}
FAMILIES = {
    "vae": lambda grid: VAE(grid, vae.Config(hidden_size=8, encoder_hidden_size=8, latent_channels=4)),
    "vae_of_classes": lambda grid: VAE(grid, vae.Config(hidden_size=8, encoder_hidden_size=8, latent_channels=4, **CLASSES)),
    "vae_kl": lambda grid: VAE(grid, vae.Config(architecture="autoencoder_kl", hidden_size=32, latent_channels=2)),
    "gan": lambda grid: GAN(grid, gan.Config(generator_size=8, discriminator_size=8, latent_size=4)),
    "flow": lambda grid: Flow(grid, flow.Config(**FLOW)),
    "flow_of_classes": lambda grid: Flow(grid, flow.Config(**FLOW, **CLASSES)),
    "flow_matching": lambda grid: FlowMatching(grid, flow_matching.Config(**UNET)),
    "flow_matching_of_classes": lambda grid: FlowMatching(grid, flow_matching.Config(**UNET, **CLASSES)),
    "diffusion": lambda grid: Diffusion(grid, diffusion.Config(num_timesteps=21, **UNET)),
}
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
    for name, make in FAMILIES.items():
        torch.manual_seed(3)
        families[name] = make(grid)
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
    own = {name for name, make in FAMILIES.items() if "checkout of Groundup" in usage_text(make(grid))}
    assert own == {"vae", "vae_of_classes", "vae_kl", "gan", "flow", "flow_of_classes"}
    for name in FAMILIES.keys() - own:
        assert "Needs diffusers alone" in usage_text(FAMILIES[name](grid))
