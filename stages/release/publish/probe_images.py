"""The images that a published image model or classifier is measured on again, after upload and after download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pipeline.artifact import Artifact
from stages.common.images.grid import Split, load_grid, load_split
from stages.common.images.noise import seeded_generator
from stages.common.release.probe import PROBE, PROBE_IMAGES, Measured
from stages.release.publish.licence import may_be_shown
from stages.release.publish.lineage import Lineage
from stages.release.publish.parts import read_json

MOST_IMAGES = 32
MOST_FLOPS = 1.5e10
"""Training FLOPs of all images together: a likelihood costs up to some hundred times as much, on a CPU."""
LARGEST_DIFFERENCE = 0.1
"""Relative; between bits per dimension of the stage and those measured again on the same images, with other draws of noise."""


@dataclass(frozen=True)
class ProbeImages:
    """What the figure is measured on.

    Attributes:
        split: images on the model's grid, with labels.
        source: name of the data whose test images they are; None for noise.
        license: of that data.
    """

    split: Split
    source: str | None = None
    license: str | None = None

    def sentence(self) -> str:
        """Say what stands in the files, in plain words."""
        if self.source is None:
            noise = f"{len(self.split)} images of noise ({PROBE_IMAGES})"
            return f"{PROBE} measures one number on {noise}; no image of the data is in it"
        return (
            f"{PROBE} measures one number on {len(self.split)} test images of {self.source} (licence {self.license}), which are "
            f"copied into {PROBE_IMAGES}"
        )

    def save(self, folder: Path) -> None:
        """Write `probe_images.safetensors`."""
        tensors = {"images": self.split.images.contiguous(), "labels": self.split.labels.contiguous()}
        save_file(tensors, folder / PROBE_IMAGES)


def probe_images(lineage: Lineage) -> ProbeImages:
    """Return the first test images if they may be passed on, else as many images of noise.

    A user's own images are never taken, whatever licence was stated for the model.
    """
    (data,) = lineage.inputs(lineage.artifact, "images")
    num_images = _num_images(lineage.artifact)
    if may_be_shown(data, load_grid(data).license):
        test = load_split(data, "test")
        chosen = Split(test.images[:num_images].clone(), test.labels[:num_images].clone())
        return ProbeImages(chosen, lineage.names[data.fingerprint], load_grid(data).license)
    grid = load_grid(data)
    noise = torch.randint(grid.levels, (num_images, *grid.shape), generator=seeded_generator(0), dtype=torch.uint8)
    return ProbeImages(Split(noise, torch.full((num_images,), -1)))


def against_stage(artifact: Artifact, measured: Measured, probe: ProbeImages) -> tuple[str, bool]:
    """Return a sentence on what the artifact's stage measured on the same images, and whether the two agree."""
    shown = f"in a clean process with Groundup: {measured.metric} {measured.value:.6g} (n = {measured.n:,})"
    if measured.metric != "bits_per_dim" or probe.source is None:
        return shown, True
    bits = load_file(artifact / "likelihood.safetensors")["test"][: measured.n]
    if len(bits) < measured.n:
        return shown, True
    expected = float(bits.mean())
    agree = abs(measured.value - expected) <= LARGEST_DIFFERENCE * abs(expected)
    return f"{shown}; its stage measured {expected:.6g} on the same images, with other draws", agree


def _num_images(artifact: Artifact) -> int:
    path = artifact / "family.json"
    facts = read_json(path) if path.is_file() else {}
    flops = facts.get("flops_per_step", 0) / max(facts.get("batch_size", 0), 1)
    return MOST_IMAGES if not flops else max(1, min(MOST_IMAGES, int(MOST_FLOPS // flops)))
