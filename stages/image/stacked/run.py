"""Draw three classes and an image of each, put them on top of each other, and say what was made.

Legend: N stacks, C = 3 channels, H height, W width, G classes of the grey images.

Metz et al., Unrolled generative adversarial networks (arXiv 1611.02163), appendix: 1,000 modes out of ten digits, whose true
shares are known, so that what a model leaves out can be counted. Here classes are drawn uniformly and then an image of the class,
so all G³ modes are equally likely whatever the shares of the classes are; a test stack is made of test images alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.contract import Context, write_json
from pipeline.errors import DataError
from stages.common.images.grid import SPLITS, Grid, Split, load_grid, load_split, save_images, sha256_of
from stages.common.images.labels import labelled
from stages.common.images.noise import seeded_generator
from stages.common.images.parts import doing
from stages.common.images.pictures import named_rows
from stages.common.images.stacks import CHANNELS, CLASSES, STACKED, Stacked
from stages.image.stacked.config import Config

COLOURS = ("red", "green", "blue")
SHOWN = 16
"""Stacks in the picture."""


@doing("stacking the images", "set num_train lower")
def run(config: Config, context: Context) -> None:
    """Write the images artifact: stacks without labels, and beside them the three classes of each.

    Raises:
        DataError: the images are not grey, or a class has no image in a split.
    """
    source = context.input("images")
    grid = load_grid(source)
    sizes = {"train": config.num_train, "validation": config.num_validation, "test": config.num_test}
    stacks, classes = {}, {}
    for number, name in enumerate(SPLITS):
        stacks[name], classes[name] = _stacked(source, grid, name, sizes[name], seeded_generator(config.seed, number))
        context.progress(number + 1, len(SPLITS), unit="split")
    made = replace(
        grid,
        name=f"{grid.name}, stacked",
        channels=CHANNELS,
        classes=(),
        sizes={name: len(stacks[name]) for name in SPLITS},
        sha256={name: sha256_of(stacks[name]) for name in SPLITS},
    )
    save_images(context.directory, made, stacks)
    save_file(classes, context.directory / CLASSES)
    about = Stacked(name=grid.name, classes=grid.classes, levels=grid.levels, sha256=grid.sha256)
    write_json(context.directory / STACKED, about.to_json())
    _report(context, made, about, stacks["train"].images, classes)
    _card(context, made, about)


def _stacked(source: Artifact, grid: Grid, name: str, num_stacks: int, generator: torch.Generator) -> tuple[Split, Tensor]:
    """Return stacks uint8 (N, C, H, W) of one split, and the class of each channel, int64 (N, C)."""
    if grid.channels != 1 or len(grid.classes) < 2:
        raise DataError(
            f"needs.images ('{grid.name}') has {grid.channels} channel(s) and {len(grid.classes)} classes; grey images of two "
            "classes or more can be stacked, such as those of the cards digits and mnist-10k"
        )
    split = labelled(load_split(source, name))
    rows = [(split.labels == label).nonzero().flatten() for label in range(len(grid.classes))]
    if empty := [grid.classes[label] for label, found in enumerate(rows) if not len(found)]:
        raise DataError(
            f"class '{empty[0]}' of '{grid.name}' has no {name} image, so not every stack can be made; give more images"
        )
    classes = torch.randint(len(rows), (num_stacks, CHANNELS), generator=generator)
    chosen = torch.empty_like(classes)
    for label, found in enumerate(rows):
        here = classes == label
        chosen[here] = found[torch.randint(len(found), (int(here.sum()),), generator=generator)]
    return Split(split.images[chosen].squeeze(2), torch.full((num_stacks,), -1)), classes


def _report(context: Context, grid: Grid, about: Stacked, train: Tensor, classes: dict[str, Tensor]) -> None:
    modes = {name: about.modes(found) for name, found in classes.items()}
    for name, found in modes.items():
        context.metric(
            "images", len(found), unit="images", higher_is_better=None, n=len(found), split=name, headline=name == "train"
        )
        context.metric("modes", len(found.unique()), unit="modes", higher_is_better=None, n=len(found), split=name)
    context.section.describe(
        title="Stacked images",
        idea="Three grey images become the red, green and blue of one. Every triple of classes is a mode, and all modes are "
        "equally likely, so what a model leaves out can be counted: a classifier of the grey images reads each channel.",
        formula="x = (r, g, b),   mode = G² · class(r) + G · class(g) + class(b),   P(mode) = 1 / G³",
    )
    shown = train[:SHOWN]
    rows = {colour: _alone(shown, channel) for channel, colour in enumerate(COLOURS)} | {"stack": shown}
    caption = "Stacks of train, each with the three images that it is made of. The model sees the last row only."
    context.section.figure(named_rows(rows, grid.levels, context.figures / "stacks.png"), caption)
    context.section.table(
        "Stacks in the splits",
        ["split", "stacks", "modes among them", f"of {about.num_modes:,}"],
        [[name, len(found), len(found.unique()), len(found.unique()) / about.num_modes] for name, found in modes.items()],
        caption=f"A split is stacked from the same split of {about.name}: no test stack holds a train image.",
    )


def _alone(images: Tensor, channel: int) -> Tensor:
    """Return images uint8 (N, C, H, W) with one of their channels, the others black."""
    alone = torch.zeros_like(images)
    alone[:, channel] = images[:, channel]
    return alone


def _card(context: Context, grid: Grid, about: Stacked) -> None:
    front = yaml.safe_dump({"license": grid.license, "tags": ["stacked-mnist", "mode-collapse"]}, sort_keys=False)
    text = f"""---
{front}---
# {grid.name}

{grid.sizes["train"]:,} stacks to train on, {grid.sizes["validation"]:,} for choices, {grid.sizes["test"]:,} to test on: images of
3 x {grid.height} x {grid.width} values on {grid.levels} levels, each channel an image of {about.name}. Every triple of its
{len(about.classes)} classes is equally likely, so there are {about.num_modes:,} modes. `{CLASSES}` has the classes of each stack.

A split is stacked from the same split of {about.name}. The licence is that of those images.
"""
    (context.directory / "card.md").write_text(text, encoding="utf-8")
