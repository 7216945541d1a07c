"""How the other stages read a corpus artifact.

A corpus holds `data/` (a `datasets.DatasetDict` with train, validation and test, column `text`) and `statistics.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_caching, load_from_disk

from pipeline.artifact import Artifact
from pipeline.errors import DataError

disable_caching()  # `map` and `filter` would write their results beside the rows, into the artifact that they read
SPLITS = ("train", "validation", "test")


def load_split(corpus: Artifact | Path | str, split: str) -> Dataset:
    """Open one split, memory-mapped: rows are read from disk when they are used.

    Args:
        corpus: the artifact, or its directory.
        split: train, validation or test.

    Raises:
        DataError: there is no such split.
    """
    folder = _folder(corpus) / "data" / split
    if split not in SPLITS or not folder.is_dir():
        raise DataError(f"corpus: no split '{split}' here; a corpus has {', '.join(SPLITS)}")
    return load_from_disk(str(folder))


def statistics_of(corpus: Artifact | Path | str) -> dict[str, Any]:
    """Return `statistics.json`: licence, sizes of the splits, what was dropped and repaired."""
    path = _folder(corpus) / "statistics.json"
    try:
        statistics: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise DataError(f"{path.parent.name}: statistics.json is missing or unreadable; this is not a corpus") from None
    return statistics


def license_of(corpus: Artifact | Path | str) -> str:
    """Return the licence of the texts, to be carried into whatever is made from them."""
    return str(statistics_of(corpus)["license"])


def _folder(corpus: Artifact | Path | str) -> Path:
    return corpus.path if isinstance(corpus, Artifact) else Path(corpus)
