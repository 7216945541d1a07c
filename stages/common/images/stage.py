"""What every stage that trains a family of image models does: budget into steps, training, samples, likelihood, artifact.

A family's `run.py` is one call of `run_family`. Everything that is published or measured comes from the averaged weights
after the last step; there is no choice among checkpoints.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Generic, TypeVar

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.contract import Context, fsync_tree, write_json
from pipeline.errors import DataError, StageError
from stages.common import devices
from stages.common.images.class_stage import score_classes
from stages.common.images.config import ConditionalConfig, ImageModelConfig
from stages.common.images.family import BY_CALLS, ConditionalFamily, Family, Likelihood, Sampler, Trainable
from stages.common.images.family_report import Cost, Outcome, history_of, write_report
from stages.common.images.grid import GRID, SPLITS, Grid, Split, load_grid, load_split
from stages.common.images.labels import label_subset
from stages.common.images.memory import TrainingMemory
from stages.common.images.noise import seeded_generator
from stages.common.images.parts import doing
from stages.common.images.training import ImageTraining

SHARES = {"1/8": 1 / 8, "1/4": 1 / 4, "1/2": 1 / 2}
"""Shares of the budget after which samples are drawn for the anytime curve; the end is "1"."""
LEAST_STEPS = 8
_SAMPLES, _LIKELIHOOD, _REPORT, _LATENCY = (2**40 + index for index in range(4))
"""Streams of random numbers that no step number reaches."""
_SMALLER = "choose a smaller model or smaller images"


@dataclass(frozen=True)
class Measured:
    """What the averaged weights give.

    Attributes:
        samples: name of a sample set -> uint8 (N, C, H, W).
        by_calls: calls of the network for a sample, fewer than usual -> uint8 (N, C, H, W); empty where the number is fixed.
        likelihood: split -> bits per dimension; empty where the family has none.
        latency_ms: wall milliseconds for each image of a batch of 64.
    """

    samples: dict[str, Tensor]
    by_calls: dict[int, Tensor]
    likelihood: dict[str, Likelihood]
    latency_ms: float


T = TypeVar("T", bound=Trainable)


@dataclass(frozen=True, kw_only=True)
class Prepared(Generic[T]):
    """A training that knows what it may spend.

    Attributes:
        accelerator: of this process.
        family: what is trained.
        training: its loop.
        num_steps: that the budget pays for.
        flops_per_step: counted.
    """

    accelerator: Accelerator
    family: T
    training: ImageTraining
    num_steps: int
    flops_per_step: int


def prepare(config: ImageModelConfig, context: Context, make: Callable[[Grid], T]) -> Prepared[T]:
    """Make the networks and the training loop, and turn the budget into steps.

    Raises:
        DataError: the images cannot be modelled.
        StageError: budget, batch and processes do not fit together.
    """
    accelerator = devices.make_accelerator(context)
    devices.set_up_threads(context, accelerator)
    grid = load_grid(context.input("images"))
    if grid.levels < 2:
        raise DataError(f"the images have {grid.levels} level; a model needs at least 2: check the card's levels")
    memory = TrainingMemory(accelerator.device)
    torch.manual_seed(config.seed)  # of the initial weights; every later draw has a generator of its own
    family = make(grid)
    training = _training(config, context, accelerator, family, memory)
    flops = int(devices.resolve(context, accelerator, "flops_per_step", training.flops_per_step))
    num_steps = steps_of_budget(config.budget_tflop, flops)
    return Prepared(accelerator=accelerator, family=family, training=training, num_steps=num_steps, flops_per_step=flops)


@doing("training", f"set batch_size lower, or {_SMALLER}")
def run_family(config: ImageModelConfig, context: Context, make: Callable[[Grid], Family]) -> None:
    """Train the family that `make` returns and write its artifact.

    Raises:
        DataError: the images cannot be modelled.
        StageError: budget, batch and processes do not fit together; Diverged when a loss stops being finite.
        Interrupted: a stop was asked for; the state is saved.
    """
    prepared = prepare(config, context, make)
    shares = {round(prepared.num_steps * share): name for name, share in SHARES.items()}
    prepared.training.run(prepared.num_steps, {step: _sampler(prepared, name) for step, name in shares.items()})
    if context.is_main:
        with doing("measuring how long 64 samples take", _SMALLER):
            latency_ms = _latency_ms(config, prepared.family)  # first: signs of life cost a little time at each call of a layer
        with devices.signs_of_life(context, prepared.family.averaged().values()):
            raw = _drawn(config, prepared.family.sample)
            with prepared.training.averages.in_place():
                measured = _measure(config, context, prepared.family, raw, latency_ms)
                _finish(config, context, prepared, measured)
    devices.wait_for_everyone(context, prepared.accelerator)


def split_of(config: ImageModelConfig, context: Context, name: str) -> Split:
    """Return one split as this model may see it: a class-conditional one learns from its choice of labelled images."""
    images = context.input("images")
    split = load_split(images, name)
    if name != "train" or not isinstance(config, ConditionalConfig) or not config.class_conditional:
        return split
    return label_subset(split, load_grid(images).classes, num_labels=config.num_labels, seed=config.seed)


def steps_of_budget(budget_tflop: float, flops_per_step: int) -> int:
    """Return how many whole steps the budget pays for.

    Raises:
        StageError: fewer than LEAST_STEPS.
    """
    steps = int(budget_tflop * 1e12 // flops_per_step)
    if steps < LEAST_STEPS:
        need = LEAST_STEPS * flops_per_step / 1e12
        raise StageError(
            f"budget_tflop is {budget_tflop:g}, which pays for {steps} steps of {flops_per_step / 1e9:.3g} GFLOP; at least "
            f"{LEAST_STEPS} are needed: set budget_tflop to {need:.2g} or more, or lower batch_size"
        )
    return steps


def _training(
    config: ImageModelConfig, context: Context, accelerator: Accelerator, family: Trainable, memory: TrainingMemory
) -> ImageTraining:
    for player in family.players().values():
        player.to(accelerator.device)
    return ImageTraining(
        config=config,
        context=context,
        accelerator=accelerator,
        family=family,
        train=split_of(config, context, "train"),
        identity={"images": context.input("images").fingerprint} | config.model_dump(mode="json"),
        may_repeat=isinstance(config, ConditionalConfig) and config.num_labels is not None,
        autocast_dtype=_autocast_dtype(config, context, accelerator),
        memory=memory,
    )


def _autocast_dtype(config: ImageModelConfig, context: Context, accelerator: Accelerator) -> torch.dtype | None:
    def decide() -> str:
        if config.dtype != "auto":
            return config.dtype
        return devices.fastest_dtype(accelerator.device) if accelerator.device.type == "cuda" else "float32"

    return torch.bfloat16 if devices.resolve(context, accelerator, "dtype", decide) == "bfloat16" else None


def _anytime_path(context: Context, share: str) -> Path:
    return context.checkpoints / "anytime" / f"{share.replace('/', '_')}.safetensors"


def _sampler(prepared: Prepared[Family], share: str) -> Callable[[], None]:
    """Return what draws samples from the averages and keeps them beside the checkpoints until the artifact is written."""

    def sample() -> None:
        context, config = prepared.training.context, prepared.training.config
        if context.is_main:
            path = _anytime_path(context, share)
            path.parent.mkdir(exist_ok=True)
            context.phase(f"drawing samples at {share} of the budget")
            alive = devices.signs_of_life(context, prepared.family.averaged().values())
            with alive, prepared.training.averages.in_place():
                images = _drawn(config, prepared.family.sample)
            partial = path.with_suffix(".partial")
            save_file({"images": images.contiguous()}, partial)
            os.replace(partial, path)
            fsync_tree(path.parent)
        devices.wait_for_everyone(context, prepared.accelerator)

    return sample


def _drawn(config: ImageModelConfig, sampler: Sampler) -> Tensor:
    with doing(f"drawing {config.num_samples} samples", f"set num_samples lower than {config.num_samples}, or {_SMALLER}"):
        return sampler(config.num_samples, seeded_generator(config.seed, _SAMPLES))


def _measure(config: ImageModelConfig, context: Context, family: Family, raw: Tensor, latency_ms: float) -> Measured:
    context.phase("drawing samples")
    samples = {share: load_file(_anytime_path(context, share))["images"] for share in SHARES}
    samples["1"] = _drawn(config, family.sample)
    samples["raw"] = raw
    for name, sampler in family.sample_sets().items():
        samples[name] = _drawn(config, sampler)
    by_calls = {calls: _drawn(config, sampler) for calls, sampler in family.shorter_paths().items()}
    likelihood = {}
    for number, split in enumerate(SPLITS):
        images = split_of(config, context, split).images[: config.num_likelihood_images]
        advice = f"set num_likelihood_images lower than {len(images)}, or {_SMALLER}"
        what = f"measuring bits per dimension of {len(images)} {split} images"
        context.phase(what)
        with doing(what, advice):
            found = family.likelihood(images, seeded_generator(config.seed, _LIKELIHOOD, number))
        if found is not None:
            likelihood[split] = found
    return Measured(samples=samples, by_calls=by_calls, likelihood=likelihood, latency_ms=latency_ms)


def _latency_ms(config: ImageModelConfig, family: Family) -> float:
    times = []
    for repeat in range(4):
        begin = time.perf_counter()
        family.sample(64, seeded_generator(config.seed, _LATENCY))
        if repeat:  # the first call warms up
            times.append(time.perf_counter() - begin)
    return sorted(times)[1] / 64 * 1000


def _finish(config: ImageModelConfig, context: Context, prepared: Prepared[Family], measured: Measured) -> None:
    """Measure the averages, which lie in the networks now, and write the artifact."""
    family = prepared.family
    family.save(context.directory / "model")
    if measured.by_calls:
        save_file({str(calls): images for calls, images in measured.by_calls.items()}, context.directory / BY_CALLS)
    cost = cost_of(context, prepared, measured.latency_ms, family.num_function_evaluations)
    train = split_of(config, context, "train")
    outcome = Outcome(samples=measured.samples, likelihood=measured.likelihood, cost=cost, num_train=len(train))
    _write(config, context, family, outcome)
    test = load_split(context.input("images"), "test").images
    context.phase("drawing the report")
    with doing(f"reporting on {len(test)} test images", _SMALLER):
        family.report(context, test, seeded_generator(config.seed, _REPORT), history_of(context))
    if isinstance(family, ConditionalFamily) and isinstance(config, ConditionalConfig) and config.class_conditional:
        most = config.num_class_images
        context.phase(f"scoring {most} images for each class")
        with doing(f"scoring {most} images for each class", f"set num_class_images lower than {most}, or {_SMALLER}"):
            score_classes(config, context, family, train)
    write_report(config, context, family, outcome, test)


def cost_of(context: Context, prepared: Prepared[T], latency_ms: float, num_function_evaluations: int) -> Cost:
    """Return what the training took, and what one answer of the model takes."""
    parameters = sum(p.numel() for network in prepared.family.averaged().values() for p in network.parameters())
    accelerator, history = prepared.accelerator, history_of(context)
    # From the steps that were logged, because a resumed run logged them all: the earlier attempts' as well.
    wall, cpu = (mean(history[f"step_{key}"]) * prepared.num_steps for key in ("seconds", "cpu_seconds"))
    return Cost(
        num_steps=prepared.num_steps,
        flops_per_step=prepared.flops_per_step,
        parameters=parameters,
        extra_parameters=sum(p.numel() for p in prepared.training.parameters.values()) - parameters,
        latency_ms_per_image=latency_ms,
        num_function_evaluations=num_function_evaluations,
        peak_memory_gib=max(history["step_memory_gib"]),
        num_processes=accelerator.num_processes,
        wall_seconds=wall,
        cpu_seconds=cpu,
        batch_size=prepared.training.config.batch_size,
        peak_flops_of_process=devices.known_peak(accelerator.device),
    )


def _write(config: ImageModelConfig, context: Context, family: Family, outcome: Outcome) -> None:
    directory, likelihood = context.directory, outcome.likelihood
    (directory / GRID).write_bytes((context.input("images").path / GRID).read_bytes())
    save_file({name: images.contiguous() for name, images in outcome.samples.items()}, directory / "samples.safetensors")
    save_file(
        {split: found.bits.double().contiguous() for split, found in likelihood.items()}, directory / "likelihood.safetensors"
    )
    test = likelihood.get("test")
    facts = {
        "family": family.name,
        "settings": config.identity(),
        "likelihood": None if test is None else {"kind": test.kind, "detail": test.detail},
        "sample_sets": list(outcome.samples),
    }
    write_json(directory / "family.json", facts | outcome.cost.to_json())
