"""Two processes of half a batch train every likelihood and diffusion family as one process of the whole does.

As a script (`python -m tests.image.test_family_processes DIRECTORY IMAGES`) it is one rank of a training of three steps of each.
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
from tests.harness import make_context
from tests.image.digits import toy_artifact
from tests.image.tiny_families import CONFIGS, tiny_family

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ("vae", "flow_coupling", "flow_autoregressive", "flow_matching", "diffusion")
NUM_STEPS = 3


def train_all(directory: Path, images: Artifact, *, rank: int, num_processes: int) -> None:
    """Train each family; write the logged scalars, and the weights of this rank before and after."""
    for name in FAMILIES:
        context = make_context(directory / name, {"images": images}, process_index=rank, num_processes=num_processes)
        training = ImageTraining(
            config=CONFIGS[name],
            context=context,
            accelerator=make_accelerator(context),
            family=tiny_family(name, load_grid(images)),
            train=load_split(images, "train"),
            identity={},
        )
        assert all((seat.module is not seat.player) == (num_processes > 1) for seat in training.seats)
        fresh = {f"fresh.{key}": value.detach().clone() for key, value in training.parameters.items()}
        training.run(NUM_STEPS, {})
        trained = {key: value.detach() for key, value in training.parameters.items()}
        save_file(fresh | trained, directory / name / f"{rank}.safetensors")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Train all families once in this process, and once in two (gloo)."""
    root = tmp_path_factory.mktemp("families")
    images = toy_artifact(root / "images", height=8, width=8)
    train_all(root / "one", images, rank=0, num_processes=1)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["-m", "tests.image.test_family_processes", str(root / "two"), str(images.path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "RANK", "WORLD"))}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "one", root / "two"


def logged(directory: Path) -> dict[str, list[float]]:
    """Return the players' scalars: losses, and norms of the averaged gradient."""
    curves: dict[str, list[float]] = {}
    for event in map(json.loads, (directory / "events.jsonl").read_text().splitlines()):
        if "." in event["name"]:
            curves.setdefault(event["name"], []).append(event["value"])
    return curves


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_two_processes_train_a_family_as_one_does(name, folders):
    one, two = (folder / name for folder in folders)
    expected, found = logged(one), logged(two)
    assert expected.keys() == found.keys()
    for key, curve in expected.items():
        assert len(curve) == NUM_STEPS
        assert found[key] == pytest.approx(curve, rel=1e-3, abs=1e-6), key
    alone = load_file(one / "0.safetensors")
    first, second = (load_file(two / f"{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first), "ranks stay equal"
    names = [key for key in alone if not key.startswith("fresh.")]
    learnt = torch.cat([(alone[key] - alone[f"fresh.{key}"]).flatten() for key in names])
    apart = torch.cat([(alone[key] - first[key]).flatten() for key in names])
    # Adam scales gradients up that are 0 but for rounding, so single weights may differ; the way that all went may not.
    assert apart.norm() < 0.05 * learnt.norm()
    assert learnt.norm() > 0


def main() -> None:
    """Run one rank."""
    rank, num_processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    assert num_processes == 2
    train_all(Path(sys.argv[1]), Artifact.open(Path(sys.argv[2])), rank=rank, num_processes=num_processes)


if __name__ == "__main__":
    main()
