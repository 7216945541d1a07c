"""What the diffusion stage shows: images that dissolve and come back, how many steps that takes, where the bits go."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.contract import Context, write_bytes
from stages.common import plots
from stages.common.images.family import History
from stages.common.images.family_report import curves
from stages.common.images.grid import centres
from stages.common.images.pictures import named_rows
from stages.common.images.unet import to_patches
from stages.image.diffusion.bound import first_timestep

if TYPE_CHECKING:
    from stages.image.diffusion.model import Diffusion

FORMULAS = {
    "epsilon": "loss = E‖e^(x_t, t) - e‖²;   x^ = (x_t - √(1 - a_t)·e^) / √a_t",
    "v_prediction": "v = √a_t·e - √(1 - a_t)·x;   loss = E‖v^(x_t, t) - v‖²;   x^ = √a_t·x_t - √(1 - a_t)·v^",
}
SHOWN = 8
"""Images in a row of a picture."""
SHOWN_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the way from image to noise, and from noise to image, that are shown."""
TRIED_STEPS = (2, 5, 10, 25, 50, 100)
"""Numbers of steps that are compared, as far as they divide the timesteps."""
CHECKED = 64
"""Images whose bound is taken apart."""


def write(context: Context, family: Diffusion, images: Tensor, generator: torch.Generator, history: History) -> None:
    """Open the section and add pictures, losses, and the parts of the bound.

    Args:
        context: of the stage.
        family: with the averaged weights.
        images: test images, uint8 (B, C, H, W).
        generator: of noise.
        history: the logged scalars.
    """
    context.section.describe(
        title="Diffusion",
        idea="Add a little noise to an image, again and again, until nothing of it is left, and teach a network to see which "
        "noise was added. To make a new image, start from pure noise and take away what the network sees, step by step.",
        formula=f"x_t = √a_t·x + √(1 - a_t)·e;   {FORMULAS[family.config.prediction]}",
    )
    _forward(context, family, images[:SHOWN], generator)
    _backward(context, family, generator)
    _steps(context, family, generator)
    curves(
        context,
        history,
        {"denoiser.denoising": "train"},
        ylabel="squared error of the prediction",
        name="loss",
        caption="The loss is a mean over all timesteps: where there is hardly any noise it cannot be told from the image, so the "
        "loss stays above 0.",
    )
    _parts_of_the_bound(context, family, images[:CHECKED], generator)


def usage_code(family: Diffusion) -> str:
    """Return Python that samples with diffusers alone from the model in FOLDER."""
    levels = family.grid.levels
    return f"""\
import torch
from diffusers import DDPMPipeline

pipeline = DDPMPipeline.from_pretrained(FOLDER)
made = pipeline(
    batch_size=16,
    generator=torch.Generator().manual_seed(0),
    num_inference_steps={family.config.num_sample_steps},
    output_type="pt",
).images
made = torch.nn.functional.pixel_shuffle(made, {family.patch_size})
images = (made * {levels}).floor().clamp(0, {levels - 1})  # integers 0 ... {levels - 1}
"""


def write_usage(directory: Path, family: Diffusion) -> None:
    """Write `README.md` beside the saved model: how to sample with diffusers alone."""
    text = f"""# How to sample with diffusers alone

```python
{usage_code(family)}```

`DDIMPipeline.from_pretrained(FOLDER)` loads the same files and samples without noise in its steps. `clip_sample` is on: the
denoised image is cut to [-1, 1] at each step. `errors/` holds the table of mean squared errors that only the bound on the
likelihood needs; it loads with Groundup.
"""
    write_bytes(directory / "README.md", text.encode())


def _forward(context: Context, family: Diffusion, images: Tensor, generator: torch.Generator) -> None:
    x = to_patches(centres(images, family.grid.levels), family.patch_size)
    noise = torch.randn(x.shape, generator=generator)
    last = len(family.scheduler) - 1
    rows = {}
    for share in SHOWN_SHARES:
        t = torch.full((len(x),), round(share * last))
        rows[f"t = {int(t[0])}"] = family.to_images(family.scheduler.add_noise(x, noise, t))
    picture = named_rows(rows, family.grid.levels, context.figures / "noising.png")
    context.section.figure(picture, "Test images dissolve: the way to noise needs no learning.")


def _backward(context: Context, family: Diffusion, generator: torch.Generator) -> None:
    steps = family.config.num_sample_steps
    start = family.noise(SHOWN, generator)
    states = [start, *family.path(start, steps, generator)]
    places = sorted({round((1 - share) * steps) for share in SHOWN_SHARES})
    rows = {f"after {place} steps": family.to_images(states[place]) for place in places}
    picture = named_rows(rows, family.grid.levels, context.figures / "denoising.png")
    context.section.figure(picture, "From pure noise (top) to images (bottom), one column for each.")


def _steps(context: Context, family: Diffusion, generator: torch.Generator) -> None:
    start, state = family.noise(SHOWN, generator), generator.get_state()
    rows = {}
    for steps in sorted({*TRIED_STEPS, family.config.num_sample_steps}):  # its own number always divides the timesteps
        if len(family.scheduler) % steps == 0:
            generator.set_state(state)
            *_, x = family.path(start, steps, generator)
            rows[f"{steps} steps"] = family.to_images(x)
    picture = named_rows(rows, family.grid.levels, context.figures / "steps.png")
    context.section.figure(picture, "The same first noise with more and more steps, one call of the network each.")


def _parts_of_the_bound(context: Context, family: Diffusion, images: Tensor, generator: torch.Generator) -> None:
    bound = family.bound(images, generator)
    unit = math.log(2) * family.grid.num_dims
    steps = {t: float(nats.mean()) / unit for t, nats in sorted(bound.steps.items())}
    first = first_timestep(family.scheduler.alphas_cumprod, family.grid.levels)
    rows: list[list[str | int | float | bool | None]] = [
        ["noise at the end is not quite normal (prior)", float(bound.prior.mean()) / unit],
        [f"all steps, timesteps {len(family.scheduler) - 1} to {first + 1}", sum(steps.values())],
        [f"integers given timestep {first} (decoder)", float(bound.decoder.mean()) / unit],
        ["together", float(bound.nats.mean()) / unit],
    ]
    context.section.table(
        "Where the bits go",
        ["part of the bound", "bit/dim"],
        rows,
        caption=f"{len(images)} test images. Each step costs what the network cannot see in the noise at that timestep.",
    )
    chart = plots.line_chart(
        context.figures / "bits_by_timestep.svg",
        {"step": (list(steps), list(steps.values()))},
        xlabel="timestep (0: image, right: noise)",
        ylabel="bit/dim",
    )
    context.section.figure(chart, "What each timestep adds to the bound.")
