"""diffusers' loop for unconditional images against our diffusion and flow matching: `python -m benchmarks.image_peers_diffusion`.

See `image_peers` for the rules. Compared is the normalised Frechet distance of 1,000 samples, (FD - floor) / (ceiling -
floor), by our evaluator in the features of each trained extractor; the first classifier's decide. The peer does what diffusers'
example script for unconditional generation does, with its defaults: `DDPMScheduler` of 1,000 linear steps, noise prediction,
AdamW (betas 0.95 and 0.999, weight decay 1e-6), cosine decay after a warm-up, gradients cut at norm 1, `EMAModel` (inverse
gamma 1, power 3/4, at most 0.9999), `DDPMPipeline` for samples. Three things differ, in its favour: the network is ours
(`UNet2DModel`; the script's would be 100 times as large), the warm-up takes a tenth of the steps (its 500 steps would be a
third of them or more), and images lie ready as tensors. It samples in 100 ancestral steps; our diffusion takes 50, flow
matching 40 calls of the network. Tried are the script's batch of 16 and ours, and as its learning rate of 1e-4 is for far
longer trainings, rates above it. Speeds are compared at the batch that was chosen and at ours.
"""

from __future__ import annotations

import itertools
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.image_peer_side import NUM_SAMPLES, Images, flops_of, parser_of, serve_bursts, start, write_result

RATES = (3e-3, 1e-3, 6e-3, 1.2e-2)
OUR_BATCH_SIZE = 32
"""The default of our stages for diffusion and flow matching."""
NUM_TIMESTEPS, NUM_SAMPLE_STEPS = 1000, 100
WARMUP_SHARE = 0.1
BURST_IMAGES = 2048


def main() -> None:
    """Measure and print, or be diffusers' side in its environment."""
    if "--side" in sys.argv:
        _peer(parser_of(__doc__).parse_args())
        return
    from benchmarks import image_peers as peers
    from benchmarks.measuring import Table

    arguments = peers.options(__doc__)
    table = Table("Diffusion against diffusers' training loop on digits", packages=["torch", "diffusers"], other="diffusers")
    python = peers.environment("diffusers", "diffusers", "accelerate")
    peers.prepare()
    judge = _judge(peers.FOLDER)
    name = "diffusers' loop"
    module = "benchmarks.image_peers_diffusion"
    side = peers.Side(name=name, key="ddpm", module=module, python=python, variants=("16", str(OUR_BATCH_SIZE)), rates=RATES)
    theirs, trials = peers.tune(side, arguments.budget, lambda found: next(iter(judge(found["path"]).values())))
    mine = [peers.Chosen(peers.ours("diffusion", "Groundup diffusion"))]
    mine.append(peers.Chosen(peers.ours("matching", "Groundup flow matching")))
    found = peers.final_runs([*mine, theirs], arguments.seeds, arguments.budget)
    distances = {key: [judge(run["path"]) for run in runs] for key, runs in found.items()}
    twin = replace(theirs, side=replace(side, name=f"{name}, our batch"), variant=str(OUR_BATCH_SIZE))
    speeds = peers.images_per_second([*mine, theirs, twin], arguments.rounds)
    rows = []
    for one in mine:
        own = one.side.name
        for space in distances[name][0]:
            numbers, others = ([distance[space] for distance in distances[key]] for key in (own, name))
            what = f"normalised Frechet distance, {space}: {own}, {name}"
            rows.append(peers.quality_row(what, numbers, others, peers.compare_numbers(numbers, others)))
        for other in (name, twin.side.name):
            rows += peers.speed_rows(speeds, found[own], found[name], own, other)
        rows += peers.cost_rows(found[own], found[name], own, name)
    table.show(rows, [trials, peers.environment_note(side, "diffusers", "accelerate")])


def _judge(folder: Path) -> Callable[[Path], dict[str, float]]:
    """Return what gives the normalised Frechet distance of a run's samples in each trained space, the deciding one first."""
    from pipeline.artifact import Artifact
    from stages.common.images.evaluation import Evaluator
    from stages.common.images.features import load_extractors
    from stages.common.images.grid import load_grid, load_split

    facts = json.loads((folder / "facts.json").read_text())
    images = Artifact.open(Path(facts["images"]))
    extractors = [one for one in load_extractors(Artifact.open(Path(facts["extractors"]))) if one.kind != "random"]
    evaluator = Evaluator(
        train=load_split(images, "train"),
        test=load_split(images, "test"),
        levels=load_grid(images).levels,
        extractors=extractors,
        num_samples=NUM_SAMPLES,
        num_parts=0,
    )

    def judge(path: Path) -> dict[str, float]:
        spaces = evaluator.evaluate(torch.from_numpy(np.load(path.with_suffix(".npy"))))["spaces"]
        return {one.name: spaces[one.name]["values"]["frechet_ratio"] for one in extractors}

    return judge


def _peer(arguments: Namespace) -> None:
    images = start(arguments)
    loop = DiffusersLoop(images, batch_size=int(arguments.variant), rate=arguments.rate, budget=arguments.budget * 1e12)
    if arguments.bursts:
        serve_bursts(loop.burst)
        return
    loop.run(loop.num_steps)
    samples = loop.sample(arguments.seed)
    np.save(arguments.out.with_suffix(".npy"), samples.numpy())
    write_result(
        arguments,
        num_parameters=sum(p.numel() for p in loop.unet.parameters()),
        flops=loop.flops_per_step * loop.num_steps,
        num_images=loop.batch_size * loop.num_steps,
        num_evaluations=NUM_SAMPLE_STEPS,
    )


class DiffusersLoop:
    """The loop of diffusers' example, in our words."""

    def __init__(self, images: Images, *, batch_size: int, rate: float, budget: float) -> None:
        from accelerate import Accelerator
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        self.batch_size, self._levels = batch_size, images.levels
        self.unet = make_unet(images)
        self._noise_scheduler = DDPMScheduler(num_train_timesteps=NUM_TIMESTEPS, beta_schedule="linear")
        centres = (images.train.float() + 0.5) * (2 / images.levels) - 1
        loader = DataLoader(TensorDataset(centres), batch_size=batch_size, shuffle=True, drop_last=True)
        self.flops_per_step = flops_of(lambda: self._loss(self.unet, centres[:batch_size]))
        self.unet.zero_grad(set_to_none=True)
        self.num_steps = int(budget // self.flops_per_step)
        optimizer = torch.optim.AdamW(self.unet.parameters(), lr=rate, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        warmup = round(WARMUP_SHARE * self.num_steps)
        schedule = get_scheduler("cosine", optimizer, num_warmup_steps=warmup, num_training_steps=self.num_steps)
        self._average = EMAModel(self.unet.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        self._accelerator = Accelerator(cpu=True)
        self._model, self._optimizer, self._loader, self._schedule = self._accelerator.prepare(
            self.unet, optimizer, loader, schedule
        )
        self._batches: Iterator[Any] = itertools.chain.from_iterable(self._loader for _ in itertools.count())

    def run(self, num_steps: int) -> None:
        """Train."""
        for (clean,) in itertools.islice(self._batches, num_steps):
            with self._accelerator.accumulate(self._model):
                loss = self._loss(self._model, clean)
                self._accelerator.backward(loss)
                self._accelerator.clip_grad_norm_(self._model.parameters(), 1.0)
                self._optimizer.step()
                self._schedule.step()
                self._optimizer.zero_grad()
            self._average.step(self._model.parameters())
            loss.detach().item()  # the script logs it

    def burst(self) -> tuple[int, float]:
        """Train on about BURST_IMAGES images; see `serve_bursts`."""
        num_steps = BURST_IMAGES // self.batch_size
        self.run(num_steps)
        return num_steps * self.batch_size, 0.0

    def sample(self, seed: int) -> Tensor:
        """Return NUM_SAMPLES images on the grid, uint8 (N, C, H, W), of the averaged weights."""
        from diffusers import DDPMPipeline

        self._average.copy_to(self.unet.parameters())
        pipeline = DDPMPipeline(unet=self.unet, scheduler=self._noise_scheduler)
        pipeline.set_progress_bar_config(disable=True)
        generator, parts = torch.Generator().manual_seed(seed), []
        while sum(map(len, parts)) < NUM_SAMPLES:
            found = pipeline(batch_size=250, generator=generator, num_inference_steps=NUM_SAMPLE_STEPS, output_type="np")
            parts.append(torch.from_numpy(found.images).permute(0, 3, 1, 2))
        # The pipeline gives values in [0, 1]; the grid's floor brings them to levels, as for every other model.
        levels = (torch.cat(parts)[:NUM_SAMPLES] * self._levels).floor().clamp(0, self._levels - 1)
        return levels.to(torch.uint8).contiguous()

    def _loss(self, model: Any, clean: Tensor) -> Tensor:
        noise = torch.randn(clean.shape)
        timesteps = torch.randint(0, NUM_TIMESTEPS, (len(clean),)).long()
        noisy = self._noise_scheduler.add_noise(clean, noise, timesteps)
        return functional.mse_loss(model(noisy, timesteps).sample, noise)


def make_unet(images: Images) -> Any:
    """Return the network of our stages' defaults."""
    from diffusers import UNet2DModel

    channels, height, width = images.shape
    return UNet2DModel(
        sample_size=(height, width),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        add_attention=False,
    )


if __name__ == "__main__":
    main()
