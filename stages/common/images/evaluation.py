"""Judging a set of samples: every metric in every feature space, beside what real images and mere noise would get.

Legend: N samples, C channels, H height, W width, F features.

A Frechet distance depends on n, the extractor and the reference, so it is never given alone: the floor is that of as many
real train images, the ceiling that of images whose pixels are drawn one by one, each as often as in train, and
    ratio = (distance - floor) / (ceiling - floor)
is 0 for real images and 1 for pixels without any order. The reference is the test split in all of them.

How much a number depends on the luck of the draw is told by parts of the samples; see `spread`. A ratio to real images, such as
that of sharpness, depends on which real images there are as well, and is told how much by drawing those again.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from threadpoolctl import threadpool_limits
from torch import Tensor

from pipeline.errors import DataError
from stages.common.images.features import Extractor, PixelSpace, Space
from stages.common.images.grid import Split
from stages.common.images.noise import seeded_generator
from stages.common.images.spread import Values, draw_parts, measured, redrawn
from stages.common.metrics.class_histogram import compare_labels
from stages.common.metrics.frechet_distance import frechet
from stages.common.metrics.kernel_distance import squared_mmd
from stages.common.metrics.memorisation import closeness, nearest
from stages.common.metrics.precision_recall import balls
from stages.common.metrics.sharpness import energies, sharpness_ratios
from stages.common.metrics.vendi_score import vendi

_IDENTITY = ("num_samples", "num_references", "references_sha256", "training_sha256", "seed")


@dataclass(frozen=True, kw_only=True)
class _Yardsticks:
    """What is known of a space before any samples come.

    Attributes:
        space: where images become vectors.
        references: features of the test images, float64 [m, F].
        classifier: the same extractor where it knows the classes, else None.
        labels: class that it gives each test image, int64 [m]; empty without a classifier.
        floor, ceiling: Frechet distances of real and of pixel-wise images.
        real_vendi: Vendi score of as many real train images.
    """

    space: Space
    references: np.ndarray
    classifier: Extractor | None
    labels: np.ndarray
    floor: float
    ceiling: float
    real_vendi: float


class Evaluator:
    """Measures sets of `num_samples` samples, every one in the same way.

    Args:
        train, test: of the images that the models learned from; test is the reference.
        levels: K of the grid.
        extractors: of `load_extractors`; the pixels' principal components are added as one more space.
        num_samples: n of every set.
        num_parts: random parts of the samples that the deviations stand on; 0: none are given.
        seed: of the parts, of the real images of the floor and of the pixels of the ceiling.

    Attributes:
        real: the images of the floor, uint8 (num_samples, C, H, W).
        pixelwise: those of the ceiling.
        parts: rows of each random part of a set of samples, the same for every set.

    Raises:
        DataError: too few images or samples for the features, or real images that no metric can stand on.
    """

    def __init__(
        self,
        *,
        train: Split,
        test: Split,
        levels: int,
        extractors: Sequence[Extractor],
        num_samples: int,
        num_parts: int = 20,
        seed: int = 0,
    ) -> None:
        if num_samples > len(train):
            raise DataError(
                f"{num_samples} samples are to be held against as many real images, but train has {len(train)}; draw "
                f"at most {len(train)} samples, or give more images"
            )
        self._train, self._test, self._levels = train, test, levels
        self._num_samples = num_samples
        self._facts: dict[str, Any] = {
            "num_samples": num_samples,
            "num_references": len(test),
            "num_parts": num_parts,
            "seed": seed,
            "references_sha256": _sha256(test.images),
            "training_sha256": _sha256(train.images),
        }
        self.parts = draw_parts(num_samples, num_parts, np.random.default_rng(seed))
        self.real = train.images[torch.randperm(len(train), generator=seeded_generator(seed, 0))[:num_samples]]
        self.pixelwise = independent_pixels(train.images, num_samples, seeded_generator(seed, 1))
        with measuring("the images"):
            self._energies = energies("references", test.images.numpy())
            self._distances, _ = nearest("references", _flat(test.images), _flat(train.images))
            sharpness_ratios(self._energies, self._energies)
            closeness(self._distances, self._distances)
            self._yardsticks = [self._yardstick(space) for space in (*extractors, PixelSpace(train.images))]

    def _yardstick(self, space: Space) -> _Yardsticks:
        references, real = space.features(self._test.images), space.features(self.real)
        num_features = references.shape[1]
        if self.parts and len(self.parts[0]) <= num_features:
            raise DataError(
                f"parts of {len(self.parts[0])} out of {self._num_samples} samples are too few for the {num_features} features "
                f"of {space.name}; draw more samples, or set num_parts to 0 and go without deviations"
            )
        floor, ceiling = frechet(real, references), frechet(space.features(self.pixelwise), references)
        if not ceiling > floor:
            raise DataError(
                f"in the space {space.name} pixels drawn one by one are as near to the test images (Frechet distance "
                f"{ceiling:.4g}) as real images are ({floor:.4g}), so it cannot judge; take more images or train it longer"
            )
        classifier = space if isinstance(space, Extractor) and space.kind == "supervised" else None
        return _Yardsticks(
            space=space,
            references=references,
            classifier=classifier,
            labels=classifier.probabilities(self._test.images).argmax(axis=1) if classifier else np.empty(0, dtype=np.int64),
            floor=floor,
            ceiling=ceiling,
            real_vendi=vendi(real),
        )

    def evaluate(self, samples: Tensor) -> dict[str, Any]:
        """Measure samples, uint8 (num_samples, C, H, W) on the grid.

        Returns:
            `spaces`: name of a space -> `sha256`, `floor`, `ceiling`, `values`, `deviations`; `pixels`: `values` and
            `deviations` of what needs no features, and `reference_deviations`; and what must agree before two results may be
            compared. A deviation is the standard deviation of a value over other draws of samples, a reference deviation that
            over other real images. All of it is plain JSON.

        Raises:
            DataError: another number of samples than agreed on, another shape or type, or a level off the grid.
        """
        self._check(samples)
        with measuring("the samples"):
            pixels = self._in_pixels(samples)
            spaces = {one.space.name: self._in_space(one, samples) for one in self._yardsticks}
        return {**self._facts, "pixels": pixels, "spaces": spaces}

    def _check(self, samples: Tensor) -> None:
        if samples.dtype != torch.uint8 or samples.shape[1:] != self._train.images.shape[1:]:
            shape = tuple(self._train.images.shape[1:])
            raise DataError(
                f"samples are {samples.dtype} {tuple(samples.shape)}; images uint8 (N, {shape}) on the grid are needed"
            )
        if len(samples) != self._num_samples:
            raise DataError(
                f"{len(samples)} samples, but all sets have {self._num_samples}: a Frechet distance falls with n, so every model "
                "is measured at one n; draw as many samples for each"
            )
        if int(samples.max()) >= self._levels:
            raise DataError(f"level {int(samples.max())} is not on the grid of {self._levels} levels; quantise the samples")

    def _in_pixels(self, samples: Tensor) -> dict[str, Values]:
        own_energies = energies("predictions", samples.numpy())
        distances, _ = nearest("predictions", _flat(samples), _flat(self._train.images))

        def of_samples(rows: np.ndarray) -> Values:
            return sharpness_ratios(own_energies[rows], self._energies) | closeness(distances[rows], self._distances)

        def of_references(rows: np.ndarray) -> Values:
            return sharpness_ratios(own_energies, self._energies[rows]) | closeness(distances, self._distances[rows])

        found = measured(of_samples, self._num_samples, self.parts)
        return found | {"reference_deviations": redrawn(of_references, len(self._test), seed=self._facts["seed"])}

    def _in_space(self, known: _Yardsticks, samples: Tensor) -> dict[str, Any]:
        features = known.space.features(samples)
        probabilities = known.classifier.probabilities(samples) if known.classifier else None

        def values(rows: np.ndarray) -> Values:
            distance = frechet(features[rows], known.references)
            variety = vendi(features[rows])
            found = {
                "frechet_distance": distance,
                "frechet_ratio": (distance - known.floor) / (known.ceiling - known.floor),
                "kernel_distance": squared_mmd(features[rows], known.references),
                **balls(features[rows], known.references),
                "vendi_score": variety,
                "vendi_ratio": variety / known.real_vendi,
            }
            if probabilities is not None:
                found |= compare_labels(probabilities[rows].argmax(axis=1), known.labels)
                found["mean_largest_probability"] = float(probabilities[rows].max(axis=1).mean())
            return found

        facts = {"sha256": known.space.sha256, "floor": known.floor, "ceiling": known.ceiling}
        return facts | measured(values, self._num_samples, self.parts)


def check_comparable(results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to compare numbers that were not measured alike.

    Raises:
        DataError: names what differs: an extractor (by its sha256), the number of samples, the reference, the seed.
    """
    for one, other in itertools.pairwise(results):
        mine, theirs = _identity(one), _identity(other)
        wrong = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
        if wrong:
            changes = ", ".join(f"{key}: {_short(mine.get(key))} and {_short(theirs.get(key))}" for key in wrong)
            raise DataError(f"results cannot be compared, they differ in {changes}; measure all models by one evaluator")


def rank_agreement(results: Mapping[str, Mapping[str, Any]], key: str = "frechet_distance") -> dict[tuple[str, str], float]:
    """Return Kendall's tau-b (1945) between the orders in which two spaces put the models, for each pair of spaces.

    Args:
        results: model -> what `evaluate` returned.
        key: a value of the spaces.

    Raises:
        DataError: fewer than two models, or results that cannot be compared.
    """
    if len(results) < 2:
        raise DataError(f"an order of {len(results)} models says nothing; rank at least 2")
    check_comparable(list(results.values()))
    spaces = next(iter(results.values()))["spaces"]
    columns = {name: [result["spaces"][name]["values"][key] for result in results.values()] for name in spaces}
    return {pair: float(kendalltau(columns[pair[0]], columns[pair[1]]).statistic) for pair in itertools.combinations(columns, 2)}


def independent_pixels(train: Tensor, num_images: int, generator: torch.Generator) -> Tensor:
    """Return images each value of which is that of a train image drawn for it alone, uint8 (num_images, C, H, W)."""
    rows = train.flatten(1)
    drawn = torch.randint(len(rows), (num_images, rows.shape[1]), generator=generator)
    return rows.gather(0, drawn).reshape(num_images, *train.shape[1:])


def _identity(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in _IDENTITY} | {name: space["sha256"] for name, space in result["spaces"].items()}


def _flat(images: Tensor) -> np.ndarray:
    return images.flatten(1).numpy()


def _sha256(images: Tensor) -> str:
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)


@contextmanager
def measuring(what: str) -> Iterator[None]:
    # One thread for NumPy: these products are small, and their sums must not depend on how many cores there are.
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    except ValueError as error:
        raise DataError(f"{what} cannot be measured: {error}") from error
