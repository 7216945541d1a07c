"""What the GAN stage shows: the game over time, signs of collapse, samples, and a plane through the latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.contract import Context
from stages.common.images.family import History
from stages.common.images.latent_plane import NUM_CORNERS, show_plane
from stages.common.images.pictures import sheet
from stages.common.plots import line_chart
from stages.image.gan.collapse import Sign, game_signs, sample_signs

if TYPE_CHECKING:
    from stages.image.gan.config import Config
    from stages.image.gan.model import GAN

SHOWN, COLUMNS = 64, 16
NUM_MEASURED = 500
"""Samples that are searched for signs of collapse."""
SMOOTHED = 0.02
"""A curve shows means over this share of the training, so that the game can be seen through the noise of batches."""

LOSSES = {
    "relativistic": ("log(1 + exp(D(G(z)) − D(x)))", "log(1 + exp(D(x) − D(G(z))))"),
    "non_saturating": ("−log σ(D(x)) − log(1 − σ(D(G(z))))", "−log σ(D(G(z)))"),
}
PENALTIES = {"r1_r2": " + γ/2·(‖∇D(x)‖² + ‖∇D(G(z))‖²)", "r1": " + γ/2·‖∇D(x)‖²", "none": ""}


def write(context: Context, family: GAN, images: Tensor, generator: torch.Generator, history: History) -> None:
    """Write the section, the figures and the signs of collapse; see `Family.report`."""
    context.section.describe(
        title="GAN: a game of two networks",
        idea="The generator turns random numbers into images, the discriminator tells them from real ones, and each learns from "
        "the other's last move. No likelihood is computed: the loss of each only says who is ahead, so a GAN is judged by its "
        "samples, and by signs that it draws few images again and again.",
        formula=formula(family.config),
    )
    _game(context, history)
    fake = family.sample(NUM_MEASURED, generator)
    _collapse(context, [*game_signs(history), *sample_signs(fake, images, seed=family.config.seed)], history)
    path = sheet(fake[:SHOWN], family.grid.levels, COLUMNS, context.figures / "samples.png")
    context.section.figure(path, f"The first {len(fake[:SHOWN])} samples of the averaged generator; none was chosen.")
    write_plane(context, family, generator)


def formula(config: Config) -> str:
    """Return what the two networks minimise."""
    discriminator, generator = LOSSES[config.loss]
    return f"D: min {discriminator}{PENALTIES[config.penalty]};   G: min {generator}"


def smoothed(values: Sequence[float]) -> list[float]:
    """Return means over a window of SMOOTHED of the sequence, shorter at its ends."""
    reach = round(SMOOTHED * len(values) / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(len(values))
    low, high = np.maximum(ends - reach, 0), np.minimum(ends + reach + 1, len(values))
    return list(((sums[high] - sums[low]) / (high - low)).tolist())


def _game(context: Context, history: History) -> None:
    _curves(
        context,
        history,
        {"discriminator": "discriminator.loss", "generator": "generator.loss"},
        name="game",
        ylabel="loss (nat)",
        hlines={"fair draw, log 2": math.log(2)},
        caption="The game: what one network gains the other loses. Neither curve goes to zero in a good training; one that does "
        "has won, and the other then learns nothing. The discriminator's curve holds its gradient penalties.",
    )
    _curves(
        context,
        history,
        {"D(x) − D(G(z))": "discriminator.logit_gap"},
        name="logit_gap",
        ylabel="logit gap (nat)",
        hlines={"cannot tell": 0.0},
        caption="How far apart the discriminator puts real and fake images, on average.",
    )
    _curves(
        context,
        history,
        {"pairs ordered rightly": "discriminator.accuracy", "spread, fake / real": "generator.spread"},
        name="balance",
        ylabel="share; ratio",
        hlines={"guessing": 0.5, "as varied as real": 1.0},
        caption="Who is ahead: the share of pairs of a real and a fake image that the discriminator orders rightly. And how "
        "varied the fakes of a batch are, as the ratio of standard deviations: a collapse would pull it to zero.",
    )
    norms = {"discriminator": "discriminator.gradient_norm", "generator": "generator.gradient_norm"}
    penalties = {"R1, real": "discriminator.r1_penalty", "R2, fake": "discriminator.r2_penalty"}
    caption = "Length of each network's gradient, before it is cut."
    _curves(context, history, norms, name="gradient_norms", ylabel="gradient norm", caption=caption, log_y=True)
    caption = "The gradient penalties: squared slope of the discriminator at real and at fake images, before the weight γ/2."
    _curves(context, history, penalties, name="penalties", ylabel="squared slope", caption=caption, log_y=True)


def _curves(
    context: Context,
    history: History,
    keys: Mapping[str, str],
    *,
    name: str,
    ylabel: str,
    caption: str,
    hlines: Mapping[str, float] | None = None,
    log_y: bool = False,
) -> None:
    series = {label: (history["step"], smoothed(history[key])) for label, key in keys.items() if key in history}
    if series:
        path = context.figures / f"{name}.svg"
        shown = line_chart(path, series, xlabel="step", ylabel=ylabel, hlines=hlines, log_y=log_y)
        context.section.figure(
            shown, f"{caption} Means over a window of {100 * SMOOTHED:g} % of the steps, so single peaks do not show."
        )


def _collapse(context: Context, signs: Sequence[Sign], history: History) -> None:
    """Report every sign as a metric and in a table; one that fired also as a sentence and as an event."""
    fired = [sign for sign in signs if sign.fired]
    for sign in signs:
        extra = {} if sign.interval is None else {"interval": list(sign.interval)}
        context.metric(
            sign.name, sign.value, unit=sign.unit, higher_is_better=None, n=sign.n, items=sign.items, fired=sign.fired, **extra
        )
    context.metric("collapse_signs", len(fired), unit="1", higher_is_better=False, n=len(signs), items="signs")
    context.section.table(
        "Signs of collapse",
        ["sign", "value", "95 % interval", "fires", "fired", "n"],
        [
            [
                sign.name.replace("_", " "),
                sign.value,
                "" if sign.interval is None else f"[{sign.interval[0]:.3f}, {sign.interval[1]:.3f}]",
                sign.rule,
                sign.fired,
                f"{sign.n} {sign.items}",
            ]
            for sign in signs
        ],
        caption="Distances are between pixels; ratios compare samples with as many real test images.",
    )
    if not fired:
        context.section.text("No sign of collapse fired. Dropped classes do not show here; they are counted in the comparison.")
    for sign in fired:
        sentence = f"Collapse: {sign.name.replace('_', ' ')} is {sign.value:.3g} ({sign.rule}): {sign.meaning}."
        context.section.text(sentence)
        context.log(int(history["step"][-1]), collapse=sentence)


def write_plane(context: Context, family: GAN, generator: torch.Generator) -> None:
    """Write the plane between four latents that `generator` draws."""
    show_plane(
        context,
        torch.randn(NUM_CORNERS, family.config.latent_size, generator=generator),
        family.decode,
        levels=family.grid.levels,
        about="Corners: four random latents, for a GAN has no way from an image to its latent. Images in between that are "
        "neither blurred nor broken mean that the generator has learnt more than a list.",
    )
