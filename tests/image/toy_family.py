"""A family small enough to think about: independent pixels by logits, and a second player that chases the first.

As a script (`python -m tests.image.toy_family DIRECTORY IMAGES VALUES`) it is one rank of a training.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.artifact import Artifact
from pipeline.contract import Context
from pipeline.errors import GroundupError
from stages.common.images.config import ImageModelConfig
from stages.common.images.family import Family, Likelihood, Optimisation, Player
from stages.common.images.grid import Grid
from stages.common.images.stage import run_family


class Logits(nn.Module):
    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(grid.num_dims, grid.levels) * 0.1)


class Pixels(Player):
    """Negative log-likelihood, nats per value; noise moves the weight of each image so that randomness matters."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images, labels, noise):
        logits = self.network.table.T[None].expand(len(images), -1, -1)
        losses = F.cross_entropy(logits, images.flatten(1).long(), reduction="none").mean(1)
        unused = 0 * (images.flatten(1).float() @ self.network.table).sum()  # a product, for there to be something to count
        return {"loss": (losses * (1 + noise.uniform())).mean() + unused, "plain": losses.mean()}


class Chaser(Player):
    """A second network that moves towards the first, which it holds without registering it."""

    def __init__(self, network, target):
        super().__init__()
        self.network, self.target = network, (target,)

    def forward(self, images, labels, noise):
        gap = self.network.table - self.target[0].table.detach()
        return {"loss": gap.square().mean() + (0 * noise.normal(1)).mean()}


class ToyFamily(Family):
    name = "toy"

    def __init__(self, grid: Grid) -> None:
        self.grid, self.first, self.second = grid, Logits(grid), Logits(grid)

    def players(self):
        return {"pixels": Pixels(self.first), "chaser": Chaser(self.second, self.first)}

    def optimisation(self):
        return {"pixels": Optimisation(learning_rate=0.05), "chaser": Optimisation(learning_rate=0.01)}

    def averaged(self):
        return {"pixels": self.first}

    def sample(self, num_images, generator):
        drawn = torch.multinomial(self.first.table.detach().cpu().softmax(1), num_images, replacement=True, generator=generator)
        return drawn.T.reshape(num_images, *self.grid.shape).to(torch.uint8)

    def likelihood(self, images, generator):
        log_probs = self.first.table.detach().cpu().double().log_softmax(1)
        bits = -log_probs.gather(1, images.flatten(1).long().T).mean(0) / torch.log(torch.tensor(2.0))
        return Likelihood(bits=bits, kind="exact", detail="independent values")

    @property
    def num_function_evaluations(self):
        return 1

    def save(self, directory):
        directory.mkdir()
        (directory / "config.json").write_text("{}")

    def saved(self):
        return {}

    def usage(self):
        return "images = load(FOLDER)\n"

    def report(self, context, images, generator, history):
        context.section.describe(title="Toy", idea="Each value alone.")
        assert len(history["step"]) == len(history["pixels.plain"])
        if context.num_processes > 1:  # a long measurement: the process that waits for it gives signs of life
            time.sleep(4)
            silence = time.time() - (context.directory / ".beat-1").stat().st_mtime
            assert silence < 3, f"process 1 was silent for {silence:.1f} s"


def main() -> int:
    """Run one rank; a user's error is printed and ends it with its exit code."""
    directory, images, values = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    directory.mkdir(parents=True, exist_ok=True)
    context = Context(
        directory,
        {"images": [Artifact.open(images)]},
        process_index=int(os.environ.get("RANK", "0")),
        num_processes=int(os.environ.get("WORLD_SIZE", "1")),
        offline=True,
    )
    context.listen_for_stop()
    try:
        run_family(ImageModelConfig.parse(values, where="toy"), context, ToyFamily)
    except GroundupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    context.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
