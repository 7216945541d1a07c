"""Write the splits as a `datasets.DatasetDict`: the same documents give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, DatasetInfo, Features, NamedSplit, Value
from datasets.arrow_writer import ArrowWriter
from datasets.table import MemoryMappedTable
from datasets.utils import disable_progress_bars

from stages.common.corpus_io import SPLITS
from stages.text.corpus.spool import Row, split_of

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1000


@dataclass
class SplitStatistics:
    """Sizes of one split; `lengths` holds characters per document."""

    documents: int = 0
    bytes: int = 0
    characters: int = 0
    words: int = 0
    lengths: list[np.ndarray] = field(default_factory=list)

    def count(self, texts: list[str]) -> None:
        """Add documents."""
        lengths = np.array([len(text) for text in texts], dtype=np.int32)
        self.documents += len(texts)
        self.bytes += sum(len(text.encode()) for text in texts)
        self.characters += int(lengths.sum())
        self.words += sum(len(text.split()) for text in texts)
        self.lengths.append(lengths)


class _SplitWriter:
    """One Arrow file, written in batches of bounded size."""

    def __init__(self, path: Path, features: Features) -> None:
        self.path = path
        self.statistics = SplitStatistics()
        self.digest = hashlib.sha256()
        self._writer = ArrowWriter(path=str(path), features=features)
        self._rows: list[Row] = []
        self._bytes = 0
        self._names = list(features)

    def add(self, digest: str, row: Row) -> None:
        self.digest.update(digest.encode() + json.dumps(row, sort_keys=True).encode())
        self._rows.append(row)
        self._bytes += sum(len(value) for value in row.values() if value)
        if self._bytes >= _BATCH_BYTES or len(self._rows) >= _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch({name: [row[name] for row in self._rows] for name in self._names})
            self.statistics.count([text for row in self._rows if (text := row["text"]) is not None])
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.finalize()


def write_splits(
    rows: Iterable[tuple[str, Row]], folder: Path, scratch: Path, *, columns: list[str], validation: float, test: float
) -> dict[str, SplitStatistics]:
    """Write (hash, row) pairs into `folder`; each hash decides the split.

    Args:
        rows: documents in the order in which they are to lie.
        folder: becomes a saved DatasetDict; a split without documents is left out.
        scratch: directory for intermediate files.
        columns: further columns, each text or null.
        validation, test: fractions of the splits.
    """
    disable_progress_bars()
    features = Features({"text": Value("string"), **{name: Value("string") for name in columns}})
    writers = {split: _SplitWriter(scratch / f"{split}.arrow", features) for split in SPLITS}
    for digest, row in rows:
        writers[split_of(digest, validation=validation, test=test)].add(digest, row)
    splits = DatasetDict()
    for split, writer in writers.items():
        writer.close()
        if writer.statistics.documents:
            # A fingerprint from the content: the library's own one takes in times and paths.
            table = MemoryMappedTable.from_file(str(writer.path))
            info = DatasetInfo(features=features)
            splits[split] = Dataset(table, info, NamedSplit(split), fingerprint=writer.digest.hexdigest()[:16])
    splits.save_to_disk(str(folder))
    return {split: writer.statistics for split, writer in writers.items()}
