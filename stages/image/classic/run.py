"""Fit a classic density and write the artifact that every family writes; its training costs no counted FLOPs."""

from __future__ import annotations

import resource
import time
from dataclasses import asdict
from functools import partial

from safetensors.torch import save_file

from pipeline.contract import Context, write_json
from stages.common.images.family import Likelihood
from stages.common.images.family_report import Cost, Outcome
from stages.common.images.grid import GRID, SPLITS, load_grid, load_split
from stages.common.images.noise import seeded_generator
from stages.common.images.parts import doing
from stages.image.classic import report
from stages.image.classic.config import Config
from stages.image.classic.model import ClassicModel, family_name, fit

_SAMPLES, _LIKELIHOOD, _LATENCY = (2**40 + index for index in range(3))
"""Streams of random numbers."""

NOTE = "fitted in closed form or by EM: no gradient steps, so no training FLOPs are counted; the seconds are"


@doing("fitting a classic density and drawing from it", "set max_train_images, num_components or num_samples lower")
def run(config: Config, context: Context) -> None:
    """Write `model/`, `samples.safetensors`, `likelihood.safetensors`, `family.json`, figures, card and section."""
    images = context.input("images")
    splits = {name: load_split(images, name).images for name in SPLITS}
    begin, cpu_begin = time.perf_counter(), time.process_time()
    tell = partial(context.progress, total=len(config.ridges), unit="ridge")
    model = fit(config, load_grid(images), splits["train"], splits["validation"], tell=tell)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    context.phase("measuring bits per dimension")
    likelihood = {
        name: model.likelihood(splits[name][: config.num_likelihood_images], seeded_generator(config.seed, _LIKELIHOOD, number))
        for number, name in enumerate(SPLITS)
    }
    context.phase("drawing samples")
    samples = {"1": model.sample(config.num_samples, seeded_generator(config.seed, _SAMPLES))}
    cost = Cost(
        num_steps=0,
        flops_per_step=0,
        parameters=model.density.num_free,
        extra_parameters=0,
        wall_seconds=seconds,
        cpu_seconds=cpu_seconds,
        latency_ms_per_image=_latency_ms(model, config.seed),
        num_function_evaluations=1,
        peak_memory_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        num_processes=1,
        batch_size=len(splits["train"]),
        peak_flops_of_process=None,
    )
    outcome = Outcome(samples=samples, likelihood=likelihood, cost=cost, num_train=len(splits["train"]))
    _write(config, context, model, outcome)
    report.write(context, model, outcome, splits["test"], name=family_name(config))


def _write(config: Config, context: Context, model: ClassicModel, outcome: Outcome) -> None:
    directory = context.directory
    (directory / GRID).write_bytes((context.input("images").path / GRID).read_bytes())
    model.density.save_pretrained(directory / "model")
    save_file(dict(outcome.samples), directory / "samples.safetensors")
    save_file(
        {split: found.bits.contiguous() for split, found in outcome.likelihood.items()}, directory / "likelihood.safetensors"
    )
    test: Likelihood = outcome.likelihood["test"]
    best = model.best
    facts = {
        "family": family_name(config),
        "settings": config.identity() | {"note": NOTE, "ridge": None if best is None else best.ridge},
        "batch_size": 0,
        "likelihood": {"kind": test.kind, "detail": test.detail},
        "sample_sets": list(outcome.samples),
    }
    write_json(directory / "family.json", facts | asdict(outcome.cost) | {"training_flops": outcome.cost.training_flops})


def _latency_ms(model: ClassicModel, seed: int) -> float:
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        model.sample(64, seeded_generator(seed, _LATENCY))
        times.append(time.perf_counter() - begin)
    return sorted(times)[1] / 64 * 1000
