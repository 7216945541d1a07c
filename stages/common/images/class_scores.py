"""What a model says of an image and every class, written into its artifact and read by whoever compares classifiers.

Legend: N images, B images, K classes.

A generative model gives -log2 P(x | c), bits for the whole image; a discriminative one gives ln P(c | x), nats. Bayes' rule
makes the first into the second: P(c | x) = P(x | c)·P(c) / sum over c' of P(x | c')·P(c').
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from pipeline.contract import write_json
from stages.common.images.family import ConditionalFamily, Likelihood
from stages.common.images.image_sets import ImageSet
from stages.common.images.ledger import FlopLedger
from stages.common.images.noise import seeded_generator

LIKELIHOOD, POSTERIOR, SETS = "class_likelihood.safetensors", "class_posterior.safetensors", "class_sets.json"
IMAGES_AT_ONCE = 250
COUNTED = 2
"""Images whose FLOPs are counted."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of one set of images.

    Attributes:
        values: float64 (N, K): bits of x given c of a generative model, ln P(c | x) of a discriminative one.
        halves: float64 (2, N, K): the same from each half of the draws; None where nothing is drawn.
        labels: int64 (N,), -1 for foreign images.
        role: `test`, `validation`, `corrupted` or `foreign`.
        sha256: of the images and labels.
    """

    values: np.ndarray
    halves: np.ndarray | None
    labels: np.ndarray
    role: str
    sha256: str


def class_bits(family: ConditionalFamily, images: Tensor, *seeds: int) -> tuple[Tensor, Tensor]:
    """Return -log2 P(x | c) of images uint8 (B, C, H, W), float64 (B, K), and the same from each half of the draws, (2, B, K)."""
    parts = []
    for number, part in enumerate(images.split(IMAGES_AT_ONCE)):
        draws = [family.log_probs_given(part, label, seeded_generator(*seeds, number)) for label in range(family.num_classes)]
        parts.append(torch.stack(draws, dim=2))
    log_probs = torch.cat(parts, dim=1)  # (draws, B, K)
    halves = torch.stack([pooled(family, log_probs[half::2]) for half in (0, 1)])
    return -pooled(family, log_probs) / math.log(2), -halves / math.log(2)


def pooled(family: ConditionalFamily, log_probs: Tensor) -> Tensor:
    """Return one estimate of ln P from draws along the first axis, as `family.pooling` says."""
    if family.pooling == "logarithms":
        return log_probs.mean(dim=0)
    return torch.logsumexp(log_probs, dim=0) - math.log(len(log_probs))


def mixture_likelihood(family: ConditionalFamily, images: Tensor, generator: torch.Generator) -> Likelihood:
    """Return bits per dimension of images whose class nobody tells, when all classes are equally likely: P(x) = mean of P(x | c).

    The bits of an image given its class would be fewer, and may not be held against those of a model without classes.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    bits, _ = class_bits(family, images, seed)
    total = -(torch.logsumexp(-bits * math.log(2), dim=1) - math.log(family.num_classes)) / math.log(2)
    kind = "numerical" if family.pooling == "logarithms" else "lower bound"
    detail = f"{family.class_detail}; {family.num_classes} classes, equally likely"
    return Likelihood(bits=total / family.grid.num_dims, kind=kind, detail=detail)


def flops_for_one_image(family: ConditionalFamily, images: Tensor) -> float:
    """Return the counted FLOPs of scoring one image for all classes."""
    with FlopLedger() as ledger:
        class_bits(family, images[:COUNTED], 0)
    return ledger.flops / len(images[:COUNTED])


def save_scores(
    directory: Path,
    name: str,
    sets: Sequence[ImageSet],
    scores: Mapping[str, np.ndarray],
    halves: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
) -> None:
    """Write the scores of each set into file `name` and what they are into `class_sets.json`."""
    tensors = {f"{one.name}.labels": one.labels.numpy() for one in sets}
    tensors |= {f"{key}.scores": value.astype(np.float64) for key, value in scores.items()}
    tensors |= {f"{key}.halves": value.astype(np.float64) for key, value in halves.items()}
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, directory / name)
    described = {one.name: {"role": one.role, "n": len(one.images), "sha256": one.sha256} for one in sets}
    write_json(directory / SETS, {**facts, "file": name, "sets": described})


def load_scores(directory: Path) -> tuple[dict[str, Any], dict[str, ClassScores]]:
    """Return the facts of `class_sets.json` and the scores of each set."""
    facts: dict[str, Any] = json.loads((directory / SETS).read_text(encoding="utf-8"))
    tensors = load_file(directory / facts["file"])
    scores = {
        name: ClassScores(
            values=tensors[f"{name}.scores"],
            halves=tensors.get(f"{name}.halves"),
            labels=tensors[f"{name}.labels"],
            role=found["role"],
            sha256=found["sha256"],
        )
        for name, found in facts["sets"].items()
    }
    return facts, scores
