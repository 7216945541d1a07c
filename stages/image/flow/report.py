"""What the flow stage shows: data -> latent -> data, latents beside noise, ways between images, and what density says.

Legend: B images, C channels, H height, W width, K levels, D = C·H·W values.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.contract import Context
from stages.common.images.bits import mean_interval
from stages.common.images.family import History
from stages.common.images.family_report import curves
from stages.common.images.grid import dequantise, quantise
from stages.common.images.latent_plane import NUM_CORNERS, show_plane, slerp
from stages.common.images.pictures import named_rows, sheet
from stages.common.plots import line_chart
from stages.image.flow.checks import log_det_error, round_trip
from stages.image.flow.flows import from_normal_scores, normal_scores

if TYPE_CHECKING:
    from stages.image.flow.model import Flow

SHOWN = 10
"""Images in a row."""
CHECKED = 64
"""Test images that are sent to the latents and back."""
RANKED, RANKED_SHOWN, RANKED_DRAWS = 500, 8, 8
"""Test images that are ordered by their density, images shown at either end, and draws of noise for each."""
MOST_JACOBIAN_ROWS = 1024
"""Above this D the whole Jacobian is not computed: it takes D backward passes."""
HISTOGRAM_BINS = 20
SHOWN_DEVIATIONS = 3.0
"""A latent is shown from black at minus this many standard deviations to white at plus as many."""


def write(context: Context, flow: Flow, images: Tensor, generator: torch.Generator, history: History) -> None:
    """Describe the section and add tables, metrics and pictures; `images` are the test images, uint8 (B, C, H, W)."""
    context.section.describe(
        title="Normalizing flow",
        idea="An image is taken to evenly spread random numbers by many small steps, each of which can be undone and says by how "
        "much it stretches space; so the density of every image with noise added is known exactly, without a game; of "
        "the whole numbers themselves the average over noise is a bound. A new image is drawn by drawing the numbers and taking "
        "the steps backwards.",
        formula="log p(x) = log base(f(x)) + log |det ∂f/∂x|,   x = f⁻¹(z),  z ~ base",
    )
    curves(
        context,
        history,
        {"flow.loss": "train batches"},
        ylabel="bit/dim",
        name="loss",
        caption="Bits per dimension of the batches while training, one draw of dequantisation noise each.",
    )
    if flow.num_classes:
        return  # what follows shows one density, not one of each class
    _promises(context, flow, images[:CHECKED], generator)
    latents = flow.encode(images, generator)
    _there_and_back(context, flow, images[:SHOWN], latents[:SHOWN], generator)
    _uniform(context, latents)
    _sample_steps(context, flow, generator)
    if len(images) > 1:
        _interpolation(context, flow, images, latents)
    write_plane(context, flow, images[:NUM_CORNERS], latents[:NUM_CORNERS])
    _what_density_says(context, flow, images[:RANKED], generator)


def _promises(context: Context, flow: Flow, images: Tensor, generator: torch.Generator) -> None:
    """Measure the round trip in both precisions and the log-determinant against autograd."""
    noise = torch.rand(images.shape, generator=generator)
    precise = copy.deepcopy(flow.network).cpu().double()
    rows: list[list[str | int | float | bool | None]] = []
    for name, network, used in (("float32", copy.deepcopy(flow.network).cpu(), noise), ("float64", precise, noise.double())):
        values = dequantise(images, flow.grid.levels, used)
        back = round_trip(network, values)
        error = float((back - values).abs().max())
        same = float((quantise(back, flow.grid.levels) == images).double().mean())
        rows.append([f"largest |y − f⁻¹(f(y))|, {name}", error, len(images)])
        rows.append([f"pixels that come back to their level, {name}", same, images.numel()])
        context.metric(
            "round_trip_error", error, unit="1", higher_is_better=False, n=len(images), split="test", items="images", dtype=name
        )
    if flow.grid.num_dims <= MOST_JACOBIAN_ROWS:
        error = log_det_error(precise, dequantise(images, flow.grid.levels, noise.double())[0])
        rows.append(["|log-determinant − autograd's|, nat, float64", error, 1])
        context.metric("log_det_error", error, unit="nat", higher_is_better=False, n=1, split="test", items="images")
    context.section.table(
        "Does it come back, and does it know its volume?",
        ["check", "value", "n"],
        rows,
        caption="Images lie in [−1, 1]. "
        "What is invertible on paper comes back up to rounding on a computer; steep splines enlarge it.",
    )


def _there_and_back(context: Context, flow: Flow, images: Tensor, latents: Tensor, generator: torch.Generator) -> None:
    noise = torch.randn(latents.shape, generator=generator)
    rows = {
        "test": images,
        "latents of test": _shown(flow, normal_scores(latents)),
        "back from latents": flow.decode(latents),
        "normal noise": _shown(flow, noise),
        "images of the noise": flow.decode(from_normal_scores(noise)),
    }
    path = named_rows(rows, flow.grid.levels, context.figures / "there_and_back.png")
    context.section.figure(
        path,
        "Data to latents and back to the same data. The latents are shown on the scale of a standard normal base (from "
        f"−{SHOWN_DEVIATIONS:g} to {SHOWN_DEVIATIONS:g} deviations); those of a good model cannot be told from the noise below "
        "them, and images of such noise are its samples.",
    )


def _shown(flow: Flow, scores: Tensor) -> Tensor:
    return quantise(scores / SHOWN_DEVIATIONS, flow.grid.levels)


def _uniform(context: Context, latents: Tensor) -> None:
    counts, edges = np.histogram(latents.numpy(), bins=HISTOGRAM_BINS, range=(0, 1))
    density = counts / counts.sum() * HISTOGRAM_BINS
    path = line_chart(
        context.figures / "latents.svg",
        {"test images": (list((edges[:-1] + edges[1:]) / 2), list(density))},
        xlabel="latent",
        ylabel="density",
        hlines={"base": 1.0},
    )
    context.section.figure(
        path,
        f"All {latents.numel():,} latents of {len(latents):,} test images. If the model's density were the data's, they would be "
        "spread evenly; ends that stand up mean test images that the model finds more extreme than its own samples.",
    )


@torch.no_grad()
def _sample_steps(context: Context, flow: Flow, generator: torch.Generator) -> None:
    latents = flow.base(SHOWN, generator).to(flow.network.device)
    steps = [quantise(step.float().cpu(), flow.grid.levels) for step in flow.network.inverse_steps(latents)]
    rows = {"latents" if number == 0 else f"after step {number}": step for number, step in enumerate(steps)}
    path = named_rows(rows, flow.grid.levels, context.figures / "sample_steps.png")
    context.section.figure(path, "Samples being made: each row undoes one transform, from the latents to the images.")


def _interpolation(context: Context, flow: Flow, images: Tensor, latents: Tensor) -> None:
    pairs = min(6, len(images) // 2)
    first, second = images[:pairs], images[pairs : 2 * pairs]
    scores = normal_scores(latents[: 2 * pairs])
    arcs = slerp(scores[:pairs], scores[pairs:], torch.linspace(0, 1, SHOWN))
    found = flow.decode(from_normal_scores(arcs.flatten(0, 1))).unflatten(0, (pairs, SHOWN))
    rows = torch.cat([first.unsqueeze(1), found, second.unsqueeze(1)], dim=1)
    path = sheet(rows.flatten(0, 1), flow.grid.levels, SHOWN + 2, context.figures / "interpolation.png")
    context.section.figure(
        path,
        "From one test image to another along an arc between their latents. The ends come back exactly. Nothing in the training "
        "asks for a smooth way between them: a flow has as many latents as pixels, and none is a summary.",
    )


def write_plane(context: Context, flow: Flow, images: Tensor, latents: Tensor) -> None:
    """Write the plane between the `latents` of the uniform base that `images` have, both (4, C, H, W)."""
    show_plane(
        context,
        normal_scores(latents),
        lambda scores: flow.decode(from_normal_scores(scores)),
        levels=flow.grid.levels,
        originals=images,
        about="Corners: four test images, encoded with one draw of dequantisation noise and decoded by the inverse. A flow has "
        "as many latents as an image has values, none is a summary, and nothing asks for a smooth way between them.",
    )


def _what_density_says(context: Context, flow: Flow, images: Tensor, generator: torch.Generator) -> None:
    levels = flow.grid.levels
    random = torch.randint(levels, images.shape, generator=generator).to(torch.uint8)
    even = torch.arange(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, *flow.grid.shape)
    sets = {
        "test images": images,
        "test images, upside down": images.flip(2),
        "test images, dark and light swapped": levels - 1 - images,
        "even images, one of each level": even,
        "random pixels": random,
    }
    found = {name: flow.bits_per_dim(some, RANKED_DRAWS, generator) for name, some in sets.items()}
    rows: list[list[str | int | float | bool | None]] = []
    for name, bits in found.items():
        low, high = mean_interval(bits)
        rows.append([name, float(bits.mean()), f"[{low:.3f}, {high:.3f}]", len(bits)])
    context.section.table(
        "Bits per dimension of images that were never seen",
        ["images", "bit/dim", "95 % interval", "n"],
        rows,
        caption=f"{RANKED_DRAWS} draws of noise for each image; high bits mean improbable. Even images are simple, "
        "and a flow may find them more probable than real ones (Nalisnick et al., arXiv 1810.09136): density is not "
        "likeness.",
    )
    order = found["test images"].argsort()
    ends = torch.cat([order[:RANKED_SHOWN], order[-RANKED_SHOWN:]]) if len(order) > 2 * RANKED_SHOWN else order
    titles = [f"{value:.2f}" for value in found["test images"][ends].tolist()]
    path = sheet(images[ends], levels, RANKED_SHOWN, context.figures / "ranked.png", titles=titles)
    context.section.figure(path, f"The most probable and the least probable of {len(images)} test images, with their bit/dim.")
