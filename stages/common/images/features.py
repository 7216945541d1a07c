"""Feature spaces in which sets of images are compared: self-trained extractors, and the pixels' principal components.

Legend: N images, C channels, H height, W width, F features.

A number in one space means nothing in another, so each space carries a sha256 of all that defines it, and what was measured
carries it on. An artifact of kind `feature_extractors` holds `extractors.json` and one folder for each extractor: the network
in diffusers' form, and `statistics.safetensors`, the mean and standard deviation of its features over the train split.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from diffusers.models.modeling_utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from scipy.linalg import eigh
from torch import Tensor

from pipeline.artifact import Artifact
from pipeline.contract import sha256_file
from pipeline.errors import DataError, StageError
from stages.common.images.extractor import ExtractorNetwork
from stages.common.images.parts import Parts

EXTRACTORS, STATISTICS = "extractors.json", "statistics.safetensors"
PIXEL_COMPONENTS = 32
"""Principal components of the pixels that make a space of their own."""
IMAGES_AT_ONCE = 512

ExtractorKind = Literal["supervised", "rotation", "random"]


class Space(Protocol):
    """Where images become vectors.

    Attributes:
        name: short, such as `supervised-0`.
        sha256: of all that defines the vectors.
    """

    name: str
    sha256: str

    def features(self, images: Tensor) -> np.ndarray:
        """Return float64 (N, F) of uint8 (N, C, H, W) on the grid."""


@dataclass(frozen=True, kw_only=True)
class ExtractorFacts:
    """One entry of `extractors.json`.

    Attributes:
        name: of the extractor and its folder.
        kind: what it was trained for: classes, how far an image was turned, or nothing.
        seed: of its weights and its order of images.
        num_features: F.
        num_outputs: classes that it tells apart; 0 where it has no head.
        test_accuracy: share of test images (turned images, for `rotation`) that it names right; None without training.
        sha256: of its weights and statistics.
    """

    name: str
    kind: ExtractorKind
    seed: int
    num_features: int
    num_outputs: int
    test_accuracy: float | None
    sha256: str


class Extractor:
    """A network and the statistics that make its features comparable: z = (features - mean) / deviation over train.

    Attributes:
        name, sha256: as in `Space`.
        kind: as in `ExtractorFacts`; only `supervised` ones know the classes of the images.
    """

    def __init__(self, facts: ExtractorFacts, network: ExtractorNetwork, mean: Tensor, deviation: Tensor) -> None:
        self.name, self.kind, self.sha256 = facts.name, facts.kind, facts.sha256
        self._network = network.eval()
        self._mean, self._deviation = mean.numpy(), deviation.numpy()

    def features(self, images: Tensor) -> np.ndarray:
        """Return float64 (N, F) of uint8 (N, C, H, W) on the grid."""
        return (raw_features(self._network, images).numpy() - self._mean) / self._deviation

    def probabilities(self, images: Tensor) -> np.ndarray:
        """Return float64 (N, classes): how likely the network holds each class to be. The extractor must have a head."""
        return probabilities(self._network, images)


class PixelSpace:
    """The leading principal components of the pixels of the train split: a space that no network has a say in.

    Args:
        train: uint8 (N, C, H, W).
        num_components: at most; fewer where an image has fewer values.
    """

    name = "pixels-pca"

    def __init__(self, train: Tensor, num_components: int = PIXEL_COMPONENTS) -> None:
        num_values = train[0].numel()
        total, products = np.zeros(num_values), np.zeros((num_values, num_values))
        for block in train.split(IMAGES_AT_ONCE):  # sums of whole numbers are exact, in whatever blocks they are taken
            rows = _flat(block)
            total += rows.sum(axis=0)
            products += rows.T @ rows
        self._mean = total / len(train)
        covariance = products / len(train) - np.outer(self._mean, self._mean)
        leading = [max(0, num_values - num_components), num_values - 1]
        self._components = eigh(covariance, subset_by_index=leading)[1][:, ::-1]
        self.sha256 = hashlib.sha256(f"{num_components} {tuple(train.shape)} ".encode() + train.numpy().tobytes()).hexdigest()

    def features(self, images: Tensor) -> np.ndarray:
        """Return float64 (N, F) of uint8 (N, C, H, W) on the grid, in levels."""
        return (_flat(images) - self._mean) @ self._components


def save_extractor(folder: Path, network: ExtractorNetwork, train: Tensor) -> str:
    """Measure the features of `train`, uint8 (N, C, H, W), save network and statistics; return their sha256.

    Raises:
        StageError: a feature has no variance over train, or is not finite.
    """
    features = raw_features(network, train)
    mean, deviation = features.mean(dim=0), features.std(dim=0)
    if not bool(torch.isfinite(features).all()):
        raise StageError(f"extractor {folder.name}: features are not finite; lower learning_rate")
    # Equal images give equal features up to rounding, so a deviation is held against the size of the values.
    dead = (deviation <= 1e-6 * features.abs().amax(dim=0).clamp(min=1e-12)).nonzero().flatten().tolist()
    if dead:
        raise StageError(
            f"extractor {folder.name}: {len(dead)} of {len(deviation)} features (the first: {dead[0]}) have no variance over the "
            f"{len(train)} train images; distances would mean nothing. Are the images all alike? Check them, or set another seed"
        )
    network.save_pretrained(folder)
    save_file({"mean": mean, "deviation": deviation}, folder / STATISTICS)
    return sha256_of(folder)


def sha256_of(folder: Path) -> str:
    """Return the sha256 of an extractor's weights and statistics (not of `config.json`, which names a library's version)."""
    return hashlib.sha256(
        "".join(sha256_file(folder / name) for name in (SAFETENSORS_WEIGHTS_NAME, STATISTICS)).encode()
    ).hexdigest()


def load_extractors(artifact: Artifact) -> list[Extractor]:
    """Return the extractors of an artifact of kind `feature_extractors`, in the order in which they were made.

    Raises:
        DataError: an extractor is not the one that was measured.
    """
    entries = json.loads((artifact / EXTRACTORS).read_text(encoding="utf-8"))
    return [load_extractor(artifact / entry["name"], ExtractorFacts(**entry)) for entry in entries]


def load_extractor(folder: Path, facts: ExtractorFacts) -> Extractor:
    """Return one extractor.

    Raises:
        DataError: its weights or statistics are not those that `facts` names.
    """
    found = sha256_of(folder)
    if found != facts.sha256:
        raise DataError(
            f"extractor {facts.name} has sha256 {found[:12]}, but {EXTRACTORS} says {facts.sha256[:12]}; make it anew"
        )
    statistics = load_file(folder / STATISTICS)
    network = ExtractorNetwork.from_pretrained(folder)
    return Extractor(facts, network, statistics["mean"], statistics["deviation"])


@torch.inference_mode()
def raw_features(network: ExtractorNetwork, images: Tensor) -> Tensor:
    """Return features before they are made comparable, float64 (N, F) on the CPU."""
    return Parts(IMAGES_AT_ONCE)(lambda block: network.features(block.to(network.device)).double().cpu(), images)


@torch.inference_mode()
def probabilities(network: ExtractorNetwork, images: Tensor) -> np.ndarray:
    """Return softmax of the logits, float64 (N, num_outputs)."""
    return Parts(IMAGES_AT_ONCE)(lambda block: network(block.to(network.device)).double().softmax(dim=1).cpu(), images).numpy()


def _flat(images: Tensor) -> np.ndarray:
    return images.flatten(1).double().numpy()
