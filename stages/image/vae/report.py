"""What the VAE stage shows: the two terms of the bound, the bound by k, draws beside means, and the space of latents.

Legend: B images, C channels, H height, W width; a latent has the shape (Z, h, w).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.contract import Context
from stages.common.images.bits import mean_interval
from stages.common.images.family import PATHS, History
from stages.common.images.family_report import curves
from stages.common.images.latent_plane import NUM_CORNERS, show_plane, slerp
from stages.common.images.pictures import named_rows, sheet
from stages.common.plots import bar_chart
from stages.image.vae.bounds import iwae_bound
from stages.image.vae.latent_space import (
    ACTIVE_VARIANCE,
    PATH_STEPS,
    Units,
    leading_directions,
    paths,
    smoothness,
    unit_name,
    unit_use,
)
from stages.image.vae.model import VAE
from stages.image.vae.networks import prior_of

SHOWN = 10
"""Images in a row, and steps between two images."""
MOST_UNITS = 8
"""Rows of the traversal: the units with the largest KL."""
MOST_BARS = 32
BOUND_IMAGES = 128
"""Test images of the table of bounds."""
KEPT_PATHS = 128
"""Paths between pairs of test images that are kept for whoever has an extractor of features: 270 kB of the digits."""
TRAVERSAL_REACH = 3.0
"""A unit is moved between plus and minus this many standard deviations of the prior."""


def write(context: Context, vae: VAE, images: Tensor, generator: torch.Generator, history: History) -> None:
    """Describe the section and add tables, metrics and pictures; `images` are the test images, uint8 (B, C, H, W)."""
    context.section.describe(
        title="Variational autoencoder",
        idea="An encoder squeezes an image into a few numbers with noise on them, and a decoder says how probable every image "
        "is given those numbers; both are trained so that images stay probable while the numbers look like draws from a known "
        "distribution, the prior. So a new image is drawn by drawing the numbers first, and similar numbers give similar images.",
        formula="log P(x) ≥ E[log p(x | z)] − KL(q(z | x) ‖ p(z)),  z ~ q(z | x)",
    )
    curves(
        context,
        history,
        {"vae.reconstruction": "reconstruction", "vae.kl": "KL", "vae.loss": "loss"},
        ylabel="bit/dim",
        name="elbo",
        caption="The two terms of the bound while training: what the decoder still has to say about the pixels, and what the "
        "latents say about the image. For beta = 1 the loss is their sum.",
    )
    if vae.num_classes:
        return  # latents are shown for one density, not for one of each class
    means, logvars = vae.posterior(images)
    _bounds(context, vae, images[:BOUND_IMAGES], generator)
    _draws_and_means(context, vae, images[:SHOWN], means[:SHOWN], generator)
    prior = prior_of(vae.network)
    units = unit_use(means, logvars, prior.moments(means.shape[1:]))
    _units(context, vae, units, means.shape[1:], vae.divergence(means, logvars, generator))
    if means[0, 0].numel() == 1:
        _traversal(context, vae, units, means[:1])
    else:
        _directions(context, vae, means)
    if len(images) > 1:
        _interpolation(context, vae, images, means)
        _smoothness(context, vae, means)
    write_plane(context, vae, images[:NUM_CORNERS], means[:NUM_CORNERS])


def _bounds(context: Context, vae: VAE, images: Tensor, generator: torch.Generator) -> None:
    weights = vae.log_weights(images, generator)
    to_bits = -1 / (vae.grid.num_dims * math.log(2))
    rows: list[list[str | int | float | bool | None]] = []
    for k in sorted({k for k in (1, 16, weights.shape[1]) if weights.shape[1] % k == 0}):
        bits = iwae_bound(weights, k) * to_bits
        low, high = mean_interval(bits)
        rows.append([k, float(bits.mean()), f"[{low:.3f}, {high:.3f}]", len(bits)])
        if k == 1:
            context.metric(
                "elbo_bits_per_dim",
                float(bits.mean()),
                unit="bit/dim",
                higher_is_better=False,
                n=len(bits),
                split="test",
                items="images",
                interval=[low, high],
                kind="lower bound",
            )
    context.section.table(
        "The bound by number of latents",
        ["latents for each image, k", "bit/dim (test)", "95 % interval", "images"],
        rows,
        caption="k = 1 is the ELBO, what training minimises; with more latents the bound comes closer to the model's true "
        "bits per dimension, from above. The step from 1 to the last row is what the encoder's simple shape costs.",
    )


def _draws_and_means(context: Context, vae: VAE, images: Tensor, means: Tensor, generator: torch.Generator) -> None:
    latents = vae.prior(SHOWN, generator)
    rows = {
        "test": images,
        "its mean": _on_grid(vae.mean(means)),
        "its draw": vae.draw(means, generator),
        "new, mean": _on_grid(vae.mean(latents)),
        "new, draw": vae.draw(latents, generator),
    }
    path = named_rows(rows, vae.grid.levels, context.figures / "draws_and_means.png")
    context.section.figure(
        path,
        "Test images, sent through encoder and decoder, and new images from latents of the prior. The mean of p(x | z) is an "
        "average of images and looks smooth; only a draw from p(x | z) is a sample of the model.",
    )


def _units(context: Context, vae: VAE, units: Units, shape: Sequence[int], kl: Tensor) -> None:
    total, num_images = len(units.order), len(kl)
    context.metric(
        "active_units", units.num_active, unit="unit", higher_is_better=None, n=num_images, split="test", items="images"
    )
    bits = float(kl.double().mean()) / math.log(2)
    context.metric("kl_bits_per_image", bits, unit="bit/image", higher_is_better=None, n=num_images, split="test", items="images")
    shown = units.order[:MOST_BARS]
    path = bar_chart(
        context.figures / "kl_by_unit.svg",
        [unit_name(unit, shape) for unit in shown],
        [float(units.kl[unit]) / math.log(2) for unit in shown],
        ylabel="KL to the prior's moments (bit/image)",
    )
    context.section.figure(
        path,
        f"What each latent number says about an image, in bits, seen as a normal distribution of its own; {units.num_active} of "
        f"{total} are active (their mean varies over {num_images} test images by more than {ACTIVE_VARIANCE}). A unit at zero "
        f"was given up: posterior collapse. Together say {bits:.1f} bits of "
        f"{vae.grid.num_dims * math.log2(vae.grid.levels):.0f} that the pixels could hold.",
    )


def _traversal(context: Context, vae: VAE, units: Units, mean: Tensor) -> None:
    chosen = units.order[:MOST_UNITS]
    steps = torch.linspace(-TRAVERSAL_REACH, TRAVERSAL_REACH, SHOWN + 1)
    centre, logvar = (moment.flatten() for moment in prior_of(vae.network).moments(mean.shape[1:]))
    rows = {}
    for unit in chosen:
        latents = mean.flatten(1).repeat(len(steps), 1)
        latents[:, unit] = centre[unit] + steps * torch.exp(0.5 * logvar[unit])
        rows[f"unit {unit}"] = _on_grid(vae.mean(latents.unflatten(1, mean.shape[1:])))
    _steps(
        context,
        vae,
        rows,
        steps,
        "One number of a test image's latent moved over the range of the prior (in its standard deviations), the others held "
        "(means of p(x | z)); the units with the largest KL from top to bottom.",
    )


def _directions(context: Context, vae: VAE, means: Tensor) -> None:
    """Show what changes along the principal directions of latents on a map, where one number at one place hardly shows."""
    steps = torch.linspace(-TRAVERSAL_REACH, TRAVERSAL_REACH, SHOWN + 1)
    rows = {
        f"direction {number}": _on_grid(vae.mean(means[:1] + steps.view(-1, 1, 1, 1) * direction))
        for number, direction in enumerate(leading_directions(means, MOST_UNITS), 1)
    }
    _steps(
        context,
        vae,
        rows,
        steps,
        "A test image's latent moved along the directions in which the latents of test images differ most (in their "
        "standard deviations; means of p(x | z)), the largest first. One number at one place of a map would hardly show.",
    )


def _steps(context: Context, vae: VAE, rows: Mapping[str, Tensor], steps: Tensor, caption: str) -> None:
    headings = [f"{step + 0.0:+.1f}" for step in steps.round(decimals=1).tolist()]  # + 0.0: no minus before a zero
    path = named_rows(rows, vae.grid.levels, context.figures / "traversal.png", headings=headings)
    context.section.figure(path, caption)


def _interpolation(context: Context, vae: VAE, images: Tensor, means: Tensor) -> None:
    pairs = min(6, len(images) // 2)
    starts, ends = slice(0, pairs), slice(pairs, 2 * pairs)
    arcs = slerp(means[starts], means[ends], torch.linspace(0, 1, SHOWN))
    frames = _on_grid(vae.mean(arcs.flatten(0, 1))).view(pairs, SHOWN, *vae.grid.shape)
    rows = torch.cat([images[starts].unsqueeze(1), frames, images[ends].unsqueeze(1)], dim=1)
    path = sheet(rows.flatten(0, 1), vae.grid.levels, SHOWN + 2, context.figures / "interpolation.png")
    context.section.figure(
        path,
        "From one test image to another along an arc between their latents (means of p(x | z)); the first and the last "
        "column are the test images themselves.",
    )


def write_plane(context: Context, vae: VAE, images: Tensor, means: Tensor) -> None:
    """Write the plane between the `means` (4, Z, h, w) of the posteriors of `images`, uint8 (4, C, H, W)."""
    show_plane(
        context,
        means,
        lambda latents: _on_grid(vae.mean(latents)),
        levels=vae.grid.levels,
        originals=images,
        about="Corners: four test images, encoded as means of q(z | x) and decoded as means of p(x | z). A latent is a summary, "
        "and training puts noise on it, so neighbours must give similar images.",
    )


def _smoothness(context: Context, vae: VAE, means: Tensor) -> None:
    images = paths(vae, means)
    save_file({"images": _on_grid(images[:KEPT_PATHS])}, context.directory / PATHS)
    found = smoothness(images, seed=0)
    named = {
        "path_length_ratio": (found.path_ratio, found.path_interval),
        "largest_step_ratio": (found.largest_step, found.step_interval),
    }
    for name, (value, interval) in named.items():
        context.metric(
            name, value, unit="1", higher_is_better=False, n=found.num_pairs, split="test", items="pairs", interval=list(interval)
        )
    context.section.table(
        "How smooth the latent space is",
        ["statistic", "value", "95 % interval", "pairs"],
        [
            [name.replace("_", " "), value, f"[{low:.3f}, {high:.3f}]", found.num_pairs]
            for name, (value, (low, high)) in named.items()
        ],
        caption=f"{PATH_STEPS} steps along the arc between the latents of two test images, measured between decoder means in "
        f"pixel space. Path length over the distance of its ends: 1 is a plain cross-fade. Largest step over the mean step: 1 "
        f"is even, {PATH_STEPS} would be one jump. Both near 1 mean smooth.",
    )


def _on_grid(means: Tensor) -> Tensor:
    return means.round().to(torch.uint8)
