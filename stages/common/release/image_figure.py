"""One figure of a published image model or classifier, measured by the code that its stage measured it with.

    image_model                 bits_per_dim       of the images that lie in the folder
                                laplacian_ratio    of SAMPLES drawn, to those images, where the family has no likelihood
    discriminative_classifier   accuracy           on those images
    feature_extractors          accuracy           of the first supervised extractor, on those images; else, on the same
                                turned_accuracy    images turned, of the first that was trained to tell how far

Images without classes leave a classifier the confidence of its answers (mean_largest_probability), and random extractors
their features (mean_feature). All draws come from a fixed seed, so a copy of the folder gives the same figure.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import Damaged
from stages.common.images.extractor import ExtractorNetwork
from stages.common.images.features import EXTRACTORS, probabilities, raw_features
from stages.common.images.grid import Split, read_grid
from stages.common.images.noise import seeded_generator
from stages.common.images.turns import all_turns, turns_of
from stages.common.metrics.sharpness import energies, sharpness_ratios
from stages.common.release.layout import Manifest
from stages.common.release.probe import PROBE_IMAGES

SAMPLES = 64
"""Images drawn from a model that cannot say how probable an image is."""
_STREAM = 2**40 + 64
_STAGES = re.compile(r"stages\.image\.[a-z_]+")

Figure = tuple[str, float, int]
"""Metric, value, and the images that it is over."""


def image_figure(folder: Path) -> Figure:
    """Measure the published `folder`, which holds `probe_images.safetensors`.

    Raises:
        Damaged: its manifest names no stage of images.
    """
    manifest = Manifest.load(folder)
    found = load_file(folder / PROBE_IMAGES)
    split = Split(found["images"], found["labels"])
    if manifest.produces == "feature_extractors":
        return _of_extractors(folder, split)
    if manifest.produces == "discriminative_classifier":
        return _of_answers(ExtractorNetwork.from_pretrained(folder).eval(), split)
    if not _STAGES.fullmatch(manifest.stage):
        raise Damaged(f"{folder}: made by {manifest.stage!r}, which is no stage of images")
    return _of_model(_load_model(folder, manifest.stage), split.images)


def _load_model(folder: Path, stage: str) -> Any:
    """Return the stage's model with the published weights; a stage says by `load_model` how they are read."""
    settings = json.loads((folder / "family.json").read_bytes())["settings"]
    config_class = import_module(f"{stage}.config").Config
    config = config_class(**{key: value for key, value in settings.items() if key in config_class.model_fields})
    return import_module(f"{stage}.model").load_model(folder, read_grid(folder), config)


def _of_model(model: Any, images: Tensor) -> Figure:
    likelihood = model.likelihood(images, seeded_generator(0, _STREAM))
    if likelihood is not None:
        return "bits_per_dim", float(likelihood.bits.double().mean()), len(images)
    samples = model.sample(SAMPLES, seeded_generator(0, _STREAM))
    ratios = sharpness_ratios(energies("samples", samples.numpy()), energies("images", images.numpy()))
    return "laplacian_ratio", ratios["laplacian_ratio"], SAMPLES


def _of_extractors(folder: Path, split: Split) -> Figure:
    kinds = {entry["kind"]: entry["name"] for entry in reversed(json.loads((folder / EXTRACTORS).read_bytes()))}
    for kind in ("supervised", "rotation"):
        if kind in kinds:
            network = ExtractorNetwork.from_pretrained(folder, subfolder=kinds[kind]).eval()
            return _of_answers(network, split) if kind == "supervised" else _of_turns(network, split.images)
    network = ExtractorNetwork.from_pretrained(folder, subfolder=next(iter(kinds.values()))).eval()
    return "mean_feature", float(raw_features(network, split.images).mean()), len(split)


def _of_answers(network: ExtractorNetwork, split: Split) -> Figure:
    answers = probabilities(network, split.images)
    if bool((split.labels < 0).any()):
        return "mean_largest_probability", float(answers.max(axis=1).mean()), len(split)
    return "accuracy", float((answers.argmax(axis=1) == split.labels.numpy()).mean()), len(split)


def _of_turns(network: ExtractorNetwork, images: Tensor) -> Figure:
    turned = all_turns(images, turns_of(*images.shape[2:]))
    right = [float((probabilities(network, part).argmax(axis=1) == turn).mean()) for turn, part in enumerate(turned)]
    return "turned_accuracy", float(np.mean(right)), len(images) * len(turned)
