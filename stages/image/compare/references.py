"""The Frechet distance to the train images, which the literature gives, beside the one to unseen images, which decides here.

A copy of the training set is next to train and would win there. From images that it never saw it is only as far as any real
images are. So a distance to train is recorded and shown with its reference, and no verdict stands on it.

Legend: N samples, M train images, m unseen images, C channels, H height, W width, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipeline.contract import Context
from stages.common.images.evaluation import Evaluator
from stages.common.images.features import Space
from stages.common.images.spread import RANGES, Values, measured
from stages.common.metrics.frechet_distance import frechet
from stages.common.verdicts import Sampled
from stages.common.wording import short
from stages.image.compare import tables
from stages.image.compare.study import Study

TO_TRAIN = {"fd_train": "frechet_distance", "fd_gap": "frechet_gap"}
"""Column -> what `References.measure` calls it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class References:
    """Real images in one space.

    Attributes:
        space: where images become vectors.
        train: features of all train images, float64 (M, F).
        unseen: features of all unseen images, float64 (m, F).
        real_train: those of the N train images that stand for a perfect model in the floor, (N, F).
        real_unseen: those of unseen images that stand for it against train: N, or m where there are fewer.
        parts: rows of each random part of N samples that deviations stand on; without them there are no deviations.
    """

    space: Space
    train: np.ndarray
    unseen: np.ndarray
    real_train: np.ndarray
    real_unseen: np.ndarray
    parts: Sequence[np.ndarray]

    @classmethod
    def of(cls, space: Space, *, train: Tensor, unseen: Tensor, evaluator: Evaluator) -> References:
        """Return the features of `train` and `unseen`, uint8 (., C, H, W), for samples that `evaluator` measured."""
        features = space.features(unseen)
        return cls(
            space=space,
            train=space.features(train),
            unseen=features,
            real_train=space.features(evaluator.real),
            real_unseen=features[: len(evaluator.real)],
            parts=evaluator.parts,
        )

    def measure(self, samples: Tensor) -> dict[str, Values]:
        """Return distance to train, and how far the one to unseen images lies above it, of samples uint8 (N, C, H, W).

        Returns:
            `values`, and `deviations` over other draws of samples.
        """
        features = self.space.features(samples)

        def values(rows: np.ndarray) -> Values:
            to_train = frechet(features[rows], self.train)
            return {"frechet_distance": to_train, "frechet_gap": frechet(features[rows], self.unseen) - to_train}

        return measured(values, len(features), self.parts)

    def distances(self, sets: Mapping[int, Tensor]) -> Sampled:
        """Return the distance to unseen images of the samples of each seed, with its deviation over other draws of samples."""
        found = {seed: self._to_unseen(self.space.features(samples)) for seed, samples in sets.items()}
        return Sampled(
            {seed: one["values"]["frechet_distance"] for seed, one in found.items()},
            {seed: one["deviations"].get("frechet_distance", math.nan) for seed, one in found.items()},
            RANGES["frechet_distance"],
            degrees=len(self.parts) - 1,
        )

    def _to_unseen(self, features: np.ndarray) -> dict[str, Values]:
        def values(rows: np.ndarray) -> Values:
            return {"frechet_distance": frechet(features[rows], self.unseen)}

        return measured(values, len(features), self.parts)


def write_references(context: Context, study: Study) -> None:
    """Add the table of both distances; real images stand in its last rows."""
    anchors, split = study.anchors, study.split
    rows = tables.rows_of(study, ("fd", *TO_TRAIN))
    copy, unseen = anchors.floor - anchors.train_copy, anchors.floor - anchors.train_floor
    rows.append(["real train images (copies)", *map(short, (anchors.floor, anchors.train_copy, copy))])
    rows.append([f"real {split} images (unseen)", None, short(anchors.train_floor), None])
    context.section.table(
        f"Which real images: {split} or train",
        ["model", f"FD to {split}", "FD to train", f"FD to {split} − FD to train"],
        rows,
        caption=f"Fréchet distances of {anchors.num_samples} samples to {anchors.num_reference} {split} images and to all "
        f"{anchors.num_train} train images, in the features of {anchors.extractor}. The literature gives the distance to train. "
        f"Here {split} is the default, for a copy of the training set is next to train: {anchors.num_samples} train images in "
        f"place of samples have {short(anchors.train_copy)}, where {anchors.num_train_floor} {split} images, as real and unseen, "
        f"have {short(anchors.train_floor)}. A model below the latter is nearer to train than real images are. The difference is "
        f"{short(copy)} for copies and about {short(unseen)} for unseen real images, but alone it is no sign of copying: for "
        "samples far from both it may be anything, the references differ in number, and the extractor learnt from train too.",
    )
