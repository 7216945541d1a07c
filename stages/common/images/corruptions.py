"""Faults that a person would see at once, put into real images: what each metric makes of them shows what it can see.

Legend: N images, C channels, H height, W width, K levels.

Every set is as large as every other and starts from train images, so none of it was made by a model. A copy of train is the
perfect model for all metrics but those of memorisation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from stages.common.images.grid import Split
from stages.common.images.noise import seeded_generator

MOST_SAMPLES = 1000
NUM_REPEATED = 10
CONTRAST = 0.8

COPY, BLUR, NOISE = "copy of train", "blurred", "with noise"
TWO_DROPPED, HALF_ONLY = "two classes dropped", "half of the classes"
REPEATED, SHIFTED, PALE = f"{NUM_REPEATED} images repeated", "shifted by a pixel", f"contrast x {CONTRAST:g}"
PIXELWISE = "pixels drawn one by one"

EXPECTED: Mapping[str, str] = {
    COPY: "only memorisation sees it",
    BLUR: "sharpness falls in both measures, distance rises",
    NOISE: "distance rises a little, sharpness rises",
    TWO_DROPPED: "class shares and coverage see it, precision does not",
    HALF_ONLY: "class shares, recall and coverage see it, precision does not",
    REPEATED: "precision is high, recall 0",
    SHIFTED: "distance rises, sharpness does not see it",
    PALE: "Laplacian energy falls, share of fine detail does not",
    PIXELWISE: "the distance that counts as 1",
}
"""Fault -> what the metrics should say."""


def corrupted(train: Split, *, levels: int, seed: int, most: int = MOST_SAMPLES) -> dict[str, Tensor]:
    """Return fault -> images, uint8 (N, C, H, W), N the same for all: as many as the smallest choice of classes has.

    Args:
        train: real images; without at least two classes among its labels, the faults of classes are left out.
        levels: K.
        seed: of the choices and of the noise.
        most: N is at most this.
    """
    choices = _choices(train.labels)
    num_images = min(most, *(len(rows) for rows in choices.values()))
    sets = {}
    for index, (name, rows) in enumerate(choices.items()):
        order = torch.randperm(len(rows), generator=seeded_generator(seed, 2, index))[:num_images]
        sets[name] = train.images[rows[order]]
    real = sets[COPY]
    sets |= {
        BLUR: blurred(real),
        NOISE: noisy(real, levels, seeded_generator(seed, 3)),
        REPEATED: real[torch.arange(num_images) % NUM_REPEATED],
        SHIFTED: shifted(real),
        PALE: pale(real),
    }
    return {name: sets[name] for name in EXPECTED if name in sets}


def blurred(images: Tensor) -> Tensor:
    """Return the rounded mean of each value and its 8 neighbours; the border is continued."""
    padded = functional.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    return functional.avg_pool2d(padded, 3, stride=1).round().to(torch.uint8)


def noisy(images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Return images plus normal noise of an eighth of the range, rounded and cut to the grid."""
    noise = torch.randn(images.shape, generator=generator) * ((levels - 1) / 8)
    return (images + noise).round().clamp(0, levels - 1).to(torch.uint8)


def shifted(images: Tensor) -> Tensor:
    """Return the images moved one pixel to the right; the first column is continued."""
    return torch.cat([images[..., :1], images[..., :-1]], dim=-1)


def pale(images: Tensor) -> Tensor:
    """Return the images with every level times CONTRAST, rounded."""
    return (images * CONTRAST).round().to(torch.uint8)


def _choices(labels: Tensor) -> dict[str, Tensor]:
    """Return fault -> rows of the images that it may take."""
    classes = labels[labels >= 0].unique()
    choices = {COPY: torch.arange(len(labels))}
    if len(classes) > 3:
        choices[TWO_DROPPED] = torch.isin(labels, classes[:-2]).nonzero().flatten()
    if len(classes) > 1:
        choices[HALF_ONLY] = torch.isin(labels, classes[: len(classes) // 2]).nonzero().flatten()
    return choices
