"""Two processes of half a batch play the game of one process; and a saved pipeline loads where nothing else is loaded.

As a script (`python -m tests.image.test_gan_processes DIRECTORY IMAGES`) it is one rank of a training of three steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.artifact import Artifact
from stages.common.devices import make_accelerator
from stages.common.images.grid import load_grid, load_split
from stages.common.images.training import ImageTraining
from stages.image.gan.config import Config
from stages.image.gan.model import GAN
from tests.harness import make_context
from tests.image.digits import toy_artifact

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Config(batch_size=8, generator_size=16, discriminator_size=16, latent_size=4, learning_rate=1e-3, seed=3)
NUM_STEPS = 3


def train(directory: Path, images: Path, *, num_processes: int) -> list[dict[str, torch.Tensor]]:
    """Train in new processes and return the weights that each rank ended with."""
    command = [sys.executable, "-m"]
    if num_processes > 1:
        command += ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_processes), "--num_machines", "1"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    command += ["tests.image.test_gan_processes", str(directory), str(images)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "RANK", "WORLD"))}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = [json.loads((directory / f"{rank}.json").read_text()) for rank in range(num_processes)]
    assert facts == [{"num_processes": num_processes, "wrapped": num_processes > 1}] * num_processes
    return [load_file(directory / f"{rank}.safetensors") for rank in range(num_processes)]


def logged(directory: Path) -> dict[str, list[float]]:
    """Return the scalars of both players: losses, penalties, and gradient norms, which are of the averaged gradient."""
    curves: dict[str, list[float]] = {}
    for event in map(json.loads, (directory / "events.jsonl").read_text().splitlines()):
        if "." in event["name"]:
            curves.setdefault(event["name"], []).append(event["value"])
    return curves


@pytest.mark.slow
def test_two_processes_stay_in_step_and_play_the_game_of_one(tmp_path):
    images = toy_artifact(tmp_path / "images", height=8, width=8).path
    (one,) = train(tmp_path / "one", images, num_processes=1)
    first, second = train(tmp_path / "two", images, num_processes=2)
    torch.manual_seed(CONFIG.seed)
    fresh = GAN(load_grid(Artifact.open(images)), CONFIG)
    for player in ("discriminator", "generator"):
        for name, value in fresh.players()[player].named_parameters():
            assert value.ndim == 1 or not torch.equal(one[f"{player}.{name}"], value), f"{name} learnt"
    assert all(torch.equal(first[name], second[name]) for name in one)
    # Adam scales gradients up that are 0 but for rounding, so weights may differ between one process and two; the game may not.
    curves = logged(tmp_path / "one")
    assert len(curves["discriminator.r2_penalty"]) == NUM_STEPS
    for name in ("loss", "r1_penalty", "r2_penalty", "gradient_norm"):
        assert logged(tmp_path / "two")[f"discriminator.{name}"] == pytest.approx(curves[f"discriminator.{name}"], rel=2e-3)
    for name in ("loss", "gradient_norm"):
        assert logged(tmp_path / "two")[f"generator.{name}"] == pytest.approx(curves[f"generator.{name}"], rel=2e-3)


LOAD = """
import socket, sys
def refuse(*_, **__): raise OSError("the network is off")
socket.socket.connect = refuse
import torch
from safetensors.torch import save_file
from stages.image.gan.pipeline import GANPipeline
pipeline = GANPipeline.from_pretrained(sys.argv[1])
images = pipeline(batch_size=4, generator=torch.Generator().manual_seed(5), output_type="pt").images
save_file({"images": images.contiguous()}, sys.argv[2])
"""


@pytest.mark.slow
def test_a_pipeline_loads_in_a_clean_process_without_network(tmp_path):
    grid = load_grid(toy_artifact(tmp_path / "images", height=8, width=8))
    gan = GAN(grid, CONFIG)
    gan.save(tmp_path / "model")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "model"), str(tmp_path / "drawn.safetensors")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = load_file(tmp_path / "drawn.safetensors")["images"]
    expected = gan.sample(4, torch.Generator().manual_seed(5))
    levels = (drawn * (grid.levels - 1)).round().to(torch.uint8)
    assert (levels != expected).float().mean() < 0.01, "rounding may move a value over the border of its bin, no more"


def main() -> None:
    """Run one rank: three steps of both players, then write this rank's weights."""
    directory, images = Path(sys.argv[1]), Artifact.open(Path(sys.argv[2]))
    rank, num_processes = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    context = make_context(directory, {"images": images}, process_index=rank, num_processes=num_processes)
    accelerator = make_accelerator(context)
    torch.manual_seed(CONFIG.seed)
    training = ImageTraining(
        config=CONFIG,
        context=context,
        accelerator=accelerator,
        family=GAN(load_grid(images), CONFIG),
        train=load_split(images, "train"),
        identity={},
    )
    training.run(NUM_STEPS, {})
    save_file({name: value.detach() for name, value in training.parameters.items()}, directory / f"{rank}.safetensors")
    wrapped = all(seat.module is not seat.player for seat in training.seats)
    facts = {"num_processes": accelerator.num_processes, "wrapped": wrapped}
    (directory / f"{rank}.json").write_text(json.dumps(facts))
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    main()
