"""Our side of the image benchmarks against peers, in a process of its own: a stage's family with the stage's defaults.

`--side` is `vae`, `flow-coupling`, `flow-autoregressive`, `diffusion` or `matching`. Training is the stages' own loop and
measured are the averaged weights after its last step; only the stage's samples on the way, pictures and report are left out.
"""

from __future__ import annotations

import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from benchmarks.image_peer_side import NUM_SAMPLES, parser_of, serve_bursts, start, write_result
from pipeline.artifact import Artifact
from pipeline.contract import Context
from stages.common.images.config import ImageModelConfig
from stages.common.images.family import Family
from stages.common.images.grid import load_grid, load_split
from stages.common.images.noise import seeded_generator
from stages.common.images.training import ImageTraining
from stages.image.diffusion import config as diffusion_config
from stages.image.diffusion import model as diffusion_model
from stages.image.flow import config as flow_config
from stages.image.flow import model as flow_model
from stages.image.flow_matching import config as matching_config
from stages.image.flow_matching import model as matching_model
from stages.image.vae import config as vae_config
from stages.image.vae import model as vae_model

FAMILIES: dict[str, tuple[Any, Any]] = {
    "vae": (vae_config.Config, vae_model.VAE),
    "flow": (flow_config.Config, flow_model.Flow),
    "diffusion": (diffusion_config.Config, diffusion_model.Diffusion),
    "matching": (matching_config.Config, matching_model.FlowMatching),
}
LIKELIHOOD, SAMPLES = 2**40 + 1, 2**40
"""Streams of random numbers that no step number reaches."""
BURST_IMAGES = 2048


def main() -> None:
    """Train and measure, or train in bursts."""
    arguments = parser_of(__doc__).parse_args()
    start(arguments)
    side = OurSide(arguments)
    if arguments.bursts:
        serve_bursts(side.burst)
        return
    write_result(arguments, **side.train_and_measure())


class OurSide:
    """One family with its defaults."""

    def __init__(self, arguments: Namespace) -> None:
        name, _, architecture = arguments.side.partition("-")
        facts = json.loads((arguments.data.parent / "facts.json").read_text())
        self._arguments, self._images = arguments, Artifact.open(Path(facts["images"]))
        settings = {"seed": arguments.seed, "budget_tflop": arguments.budget, "checkpoint_seconds": 1e9}
        settings |= {"architecture": architecture} if architecture else {}
        config_class, family_class = FAMILIES[name]
        self.config: ImageModelConfig = config_class.parse(settings | json.loads(arguments.variant or "{}"), where=name)
        torch.manual_seed(self.config.seed)
        self.family: Family = family_class(load_grid(self._images), self.config)

    def train_and_measure(self) -> dict[str, Any]:
        """Spend the budget and return what the averaged weights give."""
        with tempfile.TemporaryDirectory() as folder:
            training = self._training(Path(folder))
            flops_per_step = training.flops_per_step()
            num_steps = int(self._arguments.budget * 1e12 // flops_per_step)
            begin = time.perf_counter()
            training.run(num_steps, {})
            seconds = time.perf_counter() - begin
            with training.averages.in_place():
                measured = self._measure()
        return measured | {
            "num_parameters": sum(p.numel() for p in training.parameters.values()),
            "flops": flops_per_step * num_steps,
            "num_images": num_steps * self.config.batch_size,
            "seconds": seconds,
        }

    def burst(self) -> tuple[int, float]:
        """Train on about BURST_IMAGES images; see `serve_bursts`."""
        begin = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            training = self._training(Path(folder))
            num_steps = BURST_IMAGES // self.config.batch_size
            ready = time.process_time()
            # A new optimiser, and the checkpoint at the end, are no training; all else in the loop counts.
            saving = Uncounted(training.saved.save)
            training.saved.save = saving  # type: ignore[assignment,method-assign]
            training.run(num_steps, {})
            end = time.process_time()
        left_out = ready - begin + saving.seconds + time.process_time() - end
        return num_steps * self.config.batch_size, left_out

    def _training(self, folder: Path) -> ImageTraining:
        return ImageTraining(
            config=self.config,
            context=Context(folder, {}, threads=1),
            accelerator=Accelerator(cpu=True),
            family=self.family,
            train=load_split(self._images, "train"),
            identity={},
        )

    def _measure(self) -> dict[str, Any]:
        """Return bits of the test images where likelihoods are compared; else keep samples beside the result."""
        if self.family.name in ("vae", "flow"):
            test = load_split(self._images, "test").images
            found = self.family.likelihood(test, seeded_generator(self.config.seed, LIKELIHOOD))
            assert found is not None, "a VAE and a flow have a likelihood"
            return {"bits": found.bits.tolist(), "bits_per_dim": float(found.bits.mean()), "detail": found.detail}
        samples = self.family.sample(NUM_SAMPLES, seeded_generator(self.config.seed, SAMPLES))
        np.save(self._arguments.out.with_suffix(".npy"), samples.numpy())
        return {"num_evaluations": self.family.num_function_evaluations}


class Uncounted:
    """A function with the CPU seconds of its calls."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any) -> None:
        """Call it."""
        begin = time.process_time()
        self._function(*arguments)
        self.seconds += time.process_time() - begin


if __name__ == "__main__":
    main()
