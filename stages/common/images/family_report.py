"""What the report says of every family: bits per dimension, samples at each share of the budget, curves, cost, card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from torch import Tensor

from pipeline.contract import Context, write_bytes
from stages.common import plots
from stages.common.images.bits import mean_interval, record_bits, show_bits
from stages.common.images.config import ImageModelConfig
from stages.common.images.family import Family, History, Likelihood
from stages.common.images.grid import load_grid
from stages.common.images.pictures import named_rows

STRIP = 12
"""Images in a row of the film strip."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training and its samples took.

    Attributes:
        num_steps: updates of each player.
        flops_per_step: counted, over all processes, double backward included.
        parameters: of the networks that sampling needs.
        extra_parameters: of networks that only training needs, such as a discriminator.
        wall_seconds, cpu_seconds: of all steps, without evaluation and checkpoints; CPU seconds of one process.
        latency_ms_per_image: wall milliseconds for each image in a batch of 64.
        num_function_evaluations: calls of a network for one sample, one after the other.
        peak_memory_gib: training memory of the main process, GiB: the most that its steps took (`memory.TrainingMemory`).
        num_processes: that trained.
        batch_size: images in a step, over all processes.
        peak_flops_of_process: published bfloat16 speed of one process's GPU, FLOP/s; None on a CPU and an unknown GPU.
    """

    num_steps: int
    flops_per_step: int
    parameters: int
    extra_parameters: int
    wall_seconds: float
    cpu_seconds: float
    latency_ms_per_image: float
    num_function_evaluations: int
    peak_memory_gib: float
    num_processes: int
    batch_size: int
    peak_flops_of_process: float | None

    @property
    def training_flops(self) -> int:
        """FLOPs of the whole training."""
        return self.num_steps * self.flops_per_step

    @property
    def images_per_second(self) -> float | None:
        """Images trained on in a second of all steps, over all processes; None for what is fitted without steps."""
        return self.num_steps * self.batch_size / self.wall_seconds if self.num_steps else None

    @property
    def mfu(self) -> float | None:
        """Model FLOP utilisation: counted FLOPs in a second over what the GPUs could do; None where that is not known."""
        if self.peak_flops_of_process is None:
            return None
        return self.training_flops / self.wall_seconds / (self.peak_flops_of_process * self.num_processes)

    def to_json(self) -> dict[str, Any]:
        """Return all figures, those that follow from others as well."""
        return asdict(self) | {key: getattr(self, key) for key in ("training_flops", "images_per_second", "mfu")}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished training gave.

    Attributes:
        samples: name of a sample set -> uint8 (N, C, H, W); "1/8" ... "1" are shares of the budget.
        likelihood: split -> bits per dimension; empty where the family has none.
        cost: what it took.
        num_train: images that it learned from.
    """

    samples: Mapping[str, Tensor]
    likelihood: Mapping[str, Likelihood]
    cost: Cost
    num_train: int


def write_report(config: ImageModelConfig, context: Context, family: Family, outcome: Outcome, test: Tensor) -> None:
    """Add metrics, the film strip, the likelihood table and the cost to the section that the family has opened."""
    _metrics(context, outcome)
    _film_strip(context, family, outcome, test)
    _likelihood(context, outcome)
    _cost(context, config, family, outcome)
    _card(context, family, outcome)


def curves(context: Context, history: History, keys: Mapping[str, str], *, ylabel: str, name: str, caption: str) -> None:
    """Draw logged scalars over the steps: `keys` maps PLAYER.KEY to the name beside the curve."""
    series = {label: (history["step"], history[key]) for key, label in keys.items() if key in history}
    if series:
        path = plots.line_chart(context.figures / f"{name}.svg", series, xlabel="step", ylabel=ylabel)
        context.section.figure(path, caption)


def _metrics(context: Context, outcome: Outcome) -> None:
    record_bits(context, outcome.likelihood)
    cost, steps = outcome.cost, {"n": outcome.cost.num_steps, "items": "steps"}
    context.metric("training_flops", cost.training_flops, unit="FLOP", higher_is_better=None, **steps)
    context.metric("num_parameters", cost.parameters, unit="1", higher_is_better=None, n=1)
    context.metric("extra_parameters", cost.extra_parameters, unit="1", higher_is_better=None, n=1)
    context.metric("wall_seconds", cost.wall_seconds, unit="s", higher_is_better=False, **steps)
    context.metric("images_per_second", cost.images_per_second, unit="image/s", higher_is_better=True, **steps)
    if cost.mfu is not None:
        context.metric("mfu", cost.mfu, unit="1", higher_is_better=True, **steps)
    context.metric(
        "training_memory_gib", cost.peak_memory_gib, unit="GiB", higher_is_better=False, title="training memory", **steps
    )
    context.metric("latency_ms_per_image", cost.latency_ms_per_image, unit="ms", higher_is_better=False, n=64, items="images")
    context.metric(
        "num_function_evaluations", cost.num_function_evaluations, unit="1", higher_is_better=False, n=1, items="samples"
    )


def _film_strip(context: Context, family: Family, outcome: Outcome, test: Tensor) -> None:
    rows = {_row_name(name): images[:STRIP] for name, images in outcome.samples.items()} | {"real (test)": test[:STRIP]}
    path = named_rows(rows, family.grid.levels, context.figures / "film_strip.png")
    others = "; further rows are other ways to draw" if any(_row_name(name) == name for name in outcome.samples) else ""
    context.section.figure(
        path,
        "The same latents after an eighth, a quarter, a half and all of the budget, drawn from the averaged weights, and "
        f"by the last weights themselves{others}. The last row is real. None was chosen.",
    )


def _row_name(sample_set: str) -> str:
    return "last weights" if sample_set == "raw" else f"{sample_set} of the budget" if sample_set[:1].isdigit() else sample_set


def _likelihood(context: Context, outcome: Outcome) -> None:
    if not outcome.likelihood:
        context.section.text("This family gives no likelihood: it can draw images, but cannot say how probable an image is.")
        return
    show_bits(context, outcome.likelihood)


def _cost(context: Context, config: ImageModelConfig, family: Family, outcome: Outcome) -> None:
    cost = outcome.cost
    values: dict[str, Any] = {
        "budget, TFLOP": config.budget_tflop,
        "counted training FLOPs, TFLOP": cost.training_flops / 1e12,
        "FLOPs for each image seen, MFLOP": cost.flops_per_step / config.batch_size / 1e6,
        "steps": cost.num_steps,
        "images in a step": config.batch_size,
        "parameters for sampling": cost.parameters,
        "parameters for training only": cost.extra_parameters,
        "wall seconds in steps": cost.wall_seconds,
        "CPU seconds in steps": cost.cpu_seconds,
        "images trained on in a second": cost.images_per_second,
        "share of the GPUs' speed (MFU)": "not known: no GPU, or not in the list" if cost.mfu is None else cost.mfu,
        "milliseconds for each sample": cost.latency_ms_per_image,
        "network calls for each sample": cost.num_function_evaluations,
        "training memory, GiB": cost.peak_memory_gib,
        "processes": cost.num_processes,
    }
    context.section.facts(f"Cost of the {family.name}", values)


def _card(context: Context, family: Family, outcome: Outcome) -> None:
    grid = load_grid(context.input("images"))
    metadata = {
        "library_name": "diffusers",
        "license": grid.license,
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["groundup", family.name],
    }
    size = f"{grid.height}x{grid.width}, {grid.channels} channel(s), {grid.levels} levels"
    lines = [
        f"---\n{yaml.safe_dump(metadata)}---",
        f"# {family.name.replace('_', ' ')} on {grid.name}, {outcome.cost.parameters:,} parameters",
        "",
        f"Trained from random weights on {outcome.num_train:,} images ({size}) with {outcome.cost.training_flops / 1e12:.3g} "
        f"TFLOP, counted, in {outcome.cost.num_steps:,} steps.",
        "",
        f"- Licence of the images: {grid.license}",
        f"- Images: {context.input('images').fingerprint}",
        f"- Network calls for one sample: {outcome.cost.num_function_evaluations}",
    ]
    if found := outcome.likelihood.get("test"):
        low, high = mean_interval(found.bits)
        lines.append(
            f"- Test: {float(found.bits.mean()):.3f} bits per dimension (95 % interval {low:.3f} to {high:.3f}, "
            f"{len(found.bits)} images; {found.kind}: {found.detail})"
        )
    lines += ["", usage_text(family)]
    write_bytes(context.directory / "card.md", ("\n".join(lines) + "\n").encode())


def usage_text(family: Family) -> str:
    """Return the card's section on how to load the model, with code that runs in the folder of the artifact."""
    code = family.usage().replace("FOLDER", '"model"')
    needs = "Needs diffusers alone."
    if "from stages." in code:
        needs = "The classes are Groundup's own: run it where a checkout of Groundup is on Python's path (`PYTHONPATH`)."
    return f"## How to use it\n\n{needs} In the folder of this card:\n\n```python\n{code}```"


def history_of(context: Context) -> dict[str, list[float]]:
    """Return the curves of the event log: name -> values at the steps under `step`."""
    history: dict[str, list[float]] = {}
    for line in context.events.path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if "." in event["name"] or event["name"].startswith("step_"):
            history.setdefault(event["name"], []).append(float(event["value"]))
            if event["name"] == "step_seconds":
                history.setdefault("step", []).append(float(event["step"]))
    return history
