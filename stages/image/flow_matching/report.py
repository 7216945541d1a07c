"""What the flow-matching stage shows: how noise becomes images, how many calls that takes, how exact the density is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.contract import Context, write_bytes
from stages.common import plots
from stages.common.images.bits import mean_interval
from stages.common.images.family import History
from stages.common.images.family_report import curves
from stages.common.images.grid import in_comment
from stages.common.images.latent_plane import NUM_CORNERS, show_plane
from stages.common.images.ode import CALLS_PER_HEUN_STEP, heun_path
from stages.common.images.pictures import named_rows

if TYPE_CHECKING:
    from stages.image.flow_matching.model import FlowMatching

SHOWN = 8
"""Images in a row or a column of a picture."""
SHOWN_TIMES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
TRIED_STEPS = (1, 2, 4, 10, 20)
"""Numbers of Heun steps that are compared."""
COMPARED = 32
"""Images on which numbers of steps are compared."""
REFERENCE_STEPS = 60
CHECKED = 16
"""Images whose density is computed again with twice the steps."""


def write(context: Context, family: FlowMatching, images: Tensor, generator: torch.Generator, history: History) -> None:
    """Open the section and add the pictures, the loss, and the error of the density's solver.

    Args:
        context: of the stage.
        family: with the averaged weights.
        images: test images, uint8 (B, C, H, W).
        generator: of noise and probes.
        history: the logged scalars.
    """
    context.section.describe(
        title="Flow matching",
        idea="Draw a straight line from random noise to each training image and teach a network which way the lines run at every "
        "place and time. To make a new image, start at noise and follow the arrows; followed backwards, they also say how "
        "probable an image is.",
        formula="x_t = (1 - t)·x0 + t·x1;   loss = E‖v(x_t, t) - (x1 - x0)‖²;   dx/dt = v(x, t) from t = 0 (noise) to 1 (image)",
    )
    if not family.num_classes:  # they show one density, not one of each class
        _trajectories(context, family, generator)
        _steps(context, family, generator)
    curves(
        context,
        history,
        {"velocity.loss": "train"},
        ylabel="squared error of the velocity",
        name="loss",
        caption="The loss cannot reach 0: many lines cross at one place, and the network can only learn their mean direction.",
    )
    _solver_error(context, family, images[:CHECKED], generator)
    if not family.num_classes:
        write_plane(context, family, images[:NUM_CORNERS], generator)


def usage_code(family: FlowMatching) -> str:
    """Return Python that samples with diffusers alone from the model in FOLDER, by Heun's method."""
    steps, levels, patch = family.config.num_sample_steps, family.grid.levels, family.patch_size
    given = ", class_labels=labels" if family.num_classes else ""
    labels = f"labels = torch.arange(16) % {family.num_classes}  # {in_comment(family.grid.classes)}\n" if given else ""
    return f"""\
import torch
from diffusers import UNet2DModel

unet = UNet2DModel.from_pretrained(FOLDER, subfolder="unet")
size = unet.config.sample_size
x = torch.randn(16, unet.config.in_channels, *size, generator=torch.Generator().manual_seed(0))
{labels}with torch.no_grad():
    for i in range({steps}):  # sigma = 1 is noise, sigma = 0 an image; the network predicts dx/dsigma = noise - image
        sigma, step = 1 - i / {steps}, 1 / {steps}
        here = unet(x, torch.tensor(1000 * sigma){given}).sample
        there = unet(x - step * here, torch.tensor(1000 * (sigma - step)){given}).sample
        x = x - step / 2 * (here + there)
x = torch.nn.functional.pixel_shuffle(x, {patch})
images = ((x + 1) * {levels} / 2).floor().clamp(0, {levels - 1})  # integers 0 ... {levels - 1}
"""


def write_usage(directory: Path, family: FlowMatching) -> None:
    """Write `README.md` beside the saved model: how to sample with diffusers alone."""
    steps = family.config.num_sample_steps
    pipeline = (
        "The U-Net must be told a class, which `DDPMPipeline` cannot do; call the network yourself. "
        if family.num_classes
        else """`DDPMPipeline.from_pretrained(FOLDER)` loads the U-Net and a `FlowMatchEulerDiscreteScheduler`; calling it with
`num_inference_steps=100, output_type="pt"` follows the flow by Euler's method. """
    )
    text = f"""# How to sample with diffusers alone

{pipeline}Groundup's samples come from Heun's method,
{steps} steps, {CALLS_PER_HEUN_STEP * steps} calls of the network:

```python
{usage_code(family)}```

Groundup counts time t = 1 - sigma: t = 0 is noise, t = 1 is data, and v = dx/dt is minus what the network predicts.
"""
    write_bytes(directory / "README.md", text.encode())


@torch.no_grad()
def _trajectories(context: Context, family: FlowMatching, generator: torch.Generator) -> None:
    steps = family.config.num_sample_steps
    path = heun_path(family.field, family.noise(SHOWN, generator), num_steps=steps)
    places = sorted({round(t * steps) for t in SHOWN_TIMES})
    rows = {f"t = {place / steps:.2g}": family.to_images(path[place]) for place in places}
    picture = named_rows(rows, family.grid.levels, context.figures / "trajectories.png")
    context.section.figure(
        picture,
        "From noise (top) to images (bottom), one column for each: early steps decide what it will be, late steps the details.",
    )


def _steps(context: Context, family: FlowMatching, generator: torch.Generator) -> None:
    start = family.noise(COMPARED, generator)
    reference = family.integrate(start, REFERENCE_STEPS)
    found = {steps: family.integrate(start, steps) for steps in TRIED_STEPS}
    rows = {f"{_counted(steps)}": family.to_images(x[:SHOWN]) for steps, x in found.items()}
    picture = named_rows(rows, family.grid.levels, context.figures / "steps.png")
    context.section.figure(picture, "The same noise followed with more and more steps; each step of Heun's method is two calls.")
    calls = [CALLS_PER_HEUN_STEP * steps for steps in TRIED_STEPS]
    levels_per_unit = family.grid.levels / 2
    errors = [float((x - reference).abs().mean()) * levels_per_unit for x in found.values()]
    chart = plots.line_chart(
        context.figures / "steps.svg",
        {"error": (calls, errors)},
        xlabel="network calls for a sample",
        ylabel="distance (levels)",
        log_x=True,
        log_y=True,
    )
    context.section.figure(
        chart,
        f"Mean distance, in levels of the grid, to the same samples with {REFERENCE_STEPS} steps ({COMPARED} images). Below "
        "half a level, more steps change almost no pixel.",
    )


def _counted(steps: int) -> str:
    return f"{steps} step{'s' if steps > 1 else ''}, {CALLS_PER_HEUN_STEP * steps} calls"


def _solver_error(context: Context, family: FlowMatching, images: Tensor, generator: torch.Generator) -> None:
    """Report the mean change of bits/dim when the steps double; the same dequantisation noise, fresh probes."""
    if len(images) < 2:
        return  # one image has no interval
    key = "num_class_steps" if family.num_classes else "num_likelihood_steps"
    usual, state = getattr(family.config, key), generator.get_state()
    bits = []
    for num_steps in (usual, 2 * usual):
        generator.set_state(state)
        finer = copy.copy(family)
        finer.config = family.config.model_copy(update={key: num_steps})
        bits.append(finer.likelihood(images, generator).bits)
    change = bits[1] - bits[0]
    mean, (low, high) = float(change.mean()), mean_interval(change)
    context.metric(
        "likelihood_solver_change",
        mean,
        unit="bit/dim",
        higher_is_better=None,
        n=len(change),
        split="test",
        items="images",
        interval=[low, high],
    )
    context.section.text(
        f"Bits per dimension are a number of the solver: with {2 * usual} steps in place of "
        f"{usual} they change by {mean:+.4f} ± {high - mean:.4f} bit/dim (mean and 95 % interval over "
        f"{len(change)} test images). Differences between models smaller than that mean nothing."
    )


def write_plane(context: Context, family: FlowMatching, images: Tensor, generator: torch.Generator) -> None:
    """Write the plane between the noise that `images`, uint8 (4, C, H, W), come from."""
    steps = family.config.num_sample_steps
    show_plane(
        context,
        family.encode(images, generator),
        family.decode,
        levels=family.grid.levels,
        originals=images,
        about=f"Corners: four test images with one draw of dequantisation noise, followed back to noise and forth again, {steps} "
        "steps each way; what does not come back is the solver's error. The noise has as many numbers as an image has values.",
    )
