"""A corpus or a set of images as Parquet files that `datasets.load_dataset` reads, one or more for each split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets import Array3D, ClassLabel, Dataset, Features, Value

from pipeline.artifact import Artifact
from stages.common import corpus_io
from stages.common.images import grid as images_io

SHARD_BYTES = 500_000_000
"""Size at which a split is cut, in bytes of its rows in memory."""
FOLDER = "data"


def write_data(artifact: Artifact, destination: Path) -> None:
    """Write `data/SPLIT-00000-of-00001.parquet` for each split; the same artifact gives the same bytes.

    Raises:
        DataError: a split is missing.
    """
    folder = destination / FOLDER
    folder.mkdir()
    for split in corpus_io.SPLITS:
        rows = published_rows(artifact, split)
        parts = max(1, -(-(rows.data.nbytes or 0) // SHARD_BYTES))
        for index in range(parts):
            shard = rows.shard(parts, index, contiguous=True) if parts > 1 else rows
            shard.to_parquet(folder / f"{split}-{index:05d}-of-{parts:05d}.parquet")


def published_rows(artifact: Artifact, split: str) -> Dataset:
    """Return the rows of one split: those of a corpus as they are, images as uint8 (C, H, W) with their label."""
    if artifact.record.produces == "corpus":
        return corpus_io.load_split(artifact, split)
    grid, rows = images_io.load_grid(artifact), images_io.load_split(artifact, split)
    label = ClassLabel(names=list(grid.classes)) if grid.classes else Value("int64")
    features = Features({"image": Array3D(shape=grid.shape, dtype="uint8"), "label": label})

    def one_by_one() -> Iterator[dict[str, object]]:
        for image, value in zip(rows.images.numpy(), rows.labels.tolist(), strict=True):
            yield {"image": image, "label": value}

    return Dataset.from_list(list(one_by_one()), features=features)
