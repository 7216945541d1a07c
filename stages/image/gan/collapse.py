"""Signs that a game was lost: what the curves and the samples of a GAN reveal when the generator has collapsed.

A collapsed generator draws a few images again and again, and no loss says so: the two losses only say who is ahead. Each
sign is a number with a rule. Rules are coarse on purpose: a sign that fires is worth a look at the pictures, and class
counts, recall and coverage, which need a feature extractor, are measured where all families are compared.

Legend: N images; C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WON, WON_STEPS = 0.99, 200
"""The discriminator has won if it orders more than this share of pairs rightly for so many steps in a row."""
SURE_GAP = 10.0
"""With logits so far apart, e^-10, the discriminator finds a fake image 20,000 times less likely to be real."""
VANISHED = 1e-3
EXPLODED = 1e3
"""Gradient norm at the end over that of the whole training."""
LEAST_DISTANCE = 0.5
"""Distance between fake images over that between real ones."""
LEAST_NEIGHBOUR = 0.25
"""The same for the distance to the nearest other image: copies with a little noise are far apart on average only."""
LEAST_DISTINCT = 0.5
"""Different images among fakes, over those among as many real ones."""
LAST = 0.1
"""Share of the training that counts as its end."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One sign of collapse.

    Attributes:
        name: as in `metrics.json`.
        value: what was measured.
        unit: of the value.
        n: steps or images that it stands on; `items` says which.
        rule: when it fires.
        fired: whether it did.
        meaning: what that would mean, in a sentence.
        interval: 95 % bootstrap interval, where images were drawn at random.
    """

    name: str
    value: float
    unit: str
    n: int
    items: str
    rule: str
    fired: bool
    meaning: str
    interval: tuple[float, float] | None = None


def game_signs(history: Mapping[str, Sequence[float]]) -> list[Sign]:
    """Return the signs in the logged scalars: keys `step`, `discriminator.accuracy`, `.logit_gap`, and gradient norms."""
    steps = np.asarray(history["step"])
    won = longest_run(steps, np.asarray(history["discriminator.accuracy"]) > WON)
    gap = float(np.mean(_end(history["discriminator.logit_gap"])))
    facts = {"n": int(steps[-1]), "items": "steps"}
    signs = [
        Sign(
            name="discriminator_won_steps",
            value=won,
            unit="step",
            rule=f"{WON_STEPS} steps or more",
            fired=won >= WON_STEPS,
            meaning=f"the discriminator told more than {WON:.0%} of pairs apart for that long: the generator lost touch",
            **facts,
        ),
        Sign(
            name="logit_gap",
            value=gap,
            unit="nat",
            rule=f"more than {SURE_GAP:g}",
            fired=abs(gap) > SURE_GAP,
            meaning="the discriminator is sure of every image: it says that a fake is fake, no longer how to better it",
            **facts,
        ),
    ]
    for player in ("discriminator", "generator"):
        norms = history[f"{player}.gradient_norm"]
        ratio = float(np.median(_end(norms)) / max(float(np.median(norms)), 1e-30))
        signs.append(
            Sign(
                name=f"{player}_gradient_ratio",
                value=ratio,
                unit="1",
                rule=f"below {VANISHED:g} or above {EXPLODED:g}",
                fired=not VANISHED <= ratio <= EXPLODED,
                meaning=f"at the end the gradient of the {player} is another than before by orders of magnitude",
                **facts,
            )
        )
    return signs


def sample_signs(fake: Tensor, real: Tensor, *, seed: int) -> list[Sign]:
    """Return the signs in samples, uint8 (N, C, H, W), against as many real images; none where N is 1.

    Args:
        fake: from the generator.
        real: test images; the longer of the two is cut.
        seed: of the bootstrap.
    """
    n = min(len(fake), len(real))
    if n < 2:
        return []  # one image has no other to be like
    fakes, reals = (_Distances(images[:n]) for images in (fake, real))
    facts = {"n": n, "items": "images", "unit": "1"}
    pairs = fakes.mean / max(reals.mean, 1e-12)
    nearest = fakes.nearest / max(reals.nearest, 1e-12)
    distinct = fakes.distinct / reals.distinct
    return [
        Sign(
            name="pairwise_distance_ratio",
            value=pairs,
            rule=f"below {LEAST_DISTANCE:g}",
            fired=pairs < LEAST_DISTANCE,
            meaning="two samples differ far less than two real images do",
            interval=_ratio_interval(fakes, reals, seed=seed),
            **facts,
        ),
        Sign(
            name="nearest_distance_ratio",
            value=nearest,
            rule=f"below {LEAST_NEIGHBOUR:g}",
            fired=nearest < LEAST_NEIGHBOUR,
            meaning="most samples have another one that is nearly the same",
            **facts,
        ),
        Sign(
            name="distinct_ratio",
            value=distinct,
            rule=f"below {LEAST_DISTINCT:g}",
            fired=distinct < LEAST_DISTINCT,
            meaning="the same image is drawn again and again, to the last pixel",
            **facts,
        ),
    ]


def longest_run(steps: np.ndarray, holds: np.ndarray) -> int:
    """Return for how many steps in a row `holds` was seen; between two logged steps that hold, all steps count."""
    longest, begin = 0, None
    for step, seen in zip(steps.tolist(), holds.tolist(), strict=True):
        begin = (step if begin is None else begin) if seen else None
        if begin is not None:
            longest = max(longest, int(step - begin) + 1)
    return longest


class _Distances:
    """Pixel distances among N images: `mean` over pairs, median to the `nearest` other, number of `distinct` images."""

    def __init__(self, images: Tensor) -> None:
        flat = images.flatten(1)
        self.matrix = torch.cdist(flat.double(), flat.double()).numpy()
        n = len(flat)
        self.mean = float(self.matrix.sum() / max(1, n * (n - 1)))
        others = self.matrix + np.diag(np.full(n, np.inf))
        self.nearest = float(np.median(others.min(axis=1)))
        self.distinct = len(torch.unique(flat, dim=0))

    def resampled(self, generator: np.random.Generator, num_resamples: int) -> np.ndarray:
        """Return the mean over pairs when images are drawn again; an image paired with its own copy does not count."""
        n = len(self.matrix)
        counts = generator.multinomial(n, np.full(n, 1 / n), size=num_resamples).astype(np.float64)
        pairs = n * n - (counts**2).sum(axis=1)
        return np.asarray(((counts @ self.matrix) * counts).sum(axis=1) / np.maximum(pairs, 1))


def _ratio_interval(fakes: _Distances, reals: _Distances, *, seed: int, num_resamples: int = 1000) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    above, below = (found.resampled(generator, num_resamples) for found in (fakes, reals))
    low, high = np.quantile(above / np.maximum(below, 1e-12), [0.025, 0.975])
    return float(low), float(high)


def _end(values: Sequence[float]) -> Sequence[float]:
    return values[-max(1, round(LAST * len(values))) :]
