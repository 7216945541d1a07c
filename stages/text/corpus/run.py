"""The corpus stage: read, clean, de-duplicate, split, check, save; every document passes once, memory stays bounded.

sources -> gates -> sorted by content hash, exact copies gone -> near copies gone -> splits -> overlap gate -> Arrow
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.contract import Context
from pipeline.errors import DataError
from stages.common.corpus_io import SPLITS, load_split
from stages.text.corpus import report
from stages.text.corpus.config import Config
from stages.text.corpus.gates import Gates
from stages.text.corpus.near_duplicates import BandFile, near_duplicates
from stages.text.corpus.origin import Origin, open_origin
from stages.text.corpus.overlap import Overlap, overlaps
from stages.text.corpus.splits import SplitStatistics, write_splits
from stages.text.corpus.spool import Row, SortedDocuments, Spool

PHASES = 4


def run(config: Config, context: Context) -> None:
    """Make the corpus artifact in `context.directory`."""
    origin = open_origin(config, context)
    report.write(config, context, origin, build(config, context, origin))
    context.progress(PHASES, PHASES, unit="phase")


def build(config: Config, context: Context, origin: Origin) -> report.Corpus:
    """Write `data/` and return what was measured on the way.

    Raises:
        DataError: records that are refused, a split that is too small, or too much of one found again in train.
    """
    gates = Gates(origin.policy)
    with tempfile.TemporaryDirectory(dir=context.directory, prefix=".spool-") as scratch:
        documents = collect(config, context, gates.documents(origin.items), Path(scratch))
        gates.refuse()
        context.progress(1, PHASES, unit="phase", documents=len(documents))
        dropped = find_near_copies(documents, Path(scratch), config.near_duplicate_threshold, context.beat)
        context.progress(2, PHASES, unit="phase", documents=len(documents) - int(dropped.sum()))
        splits = write_splits(
            (pair for pair, gone in zip(_beating(documents, context.beat), dropped, strict=True) if not gone),
            context.directory / "data",
            Path(scratch),
            columns=list(origin.policy.columns),
            validation=config.validation_fraction,
            test=config.test_fraction,
        )
    check_sizes(splits, gates, config)
    context.progress(3, PHASES, unit="phase")
    found = measure_overlap(context.directory, context.beat)
    check_overlap(found, origin.max_overlap)
    return report.Corpus(splits, found, documents.num_copies, int(dropped.sum()), gates.table())


def collect(config: Config, context: Context, rows: Iterator[Row], scratch: Path) -> SortedDocuments:
    """Bring the documents into the order of their hashes, exact copies removed."""
    spool = Spool(scratch)
    for row in islice(rows, config.max_documents):
        spool.add(row)
        if spool.num_documents % 256 == 0:
            context.progress(0, PHASES, unit="phase", documents=spool.num_documents)
    return spool.sort()


def find_near_copies(documents: SortedDocuments, scratch: Path, threshold: float | None, beat: Callable[[], None]) -> np.ndarray:
    """Return which documents are near-duplicates of one that stays; shape (documents,), bool."""
    if threshold is None:
        return np.zeros(len(documents), dtype=bool)
    texts = (str(row["text"]) for _, row in _beating(documents, beat))
    return near_duplicates(BandFile(scratch / "bands", texts), documents.text, threshold)


def _beating(documents: Iterable[tuple[str, Row]], beat: Callable[[], None]) -> Iterator[tuple[str, Row]]:
    for number, pair in enumerate(documents):
        if number % 1024 == 0:
            beat()
        yield pair


def measure_overlap(directory: Path, beat: Callable[[], None]) -> dict[str, Overlap]:
    """Return the overlap of validation and test with train."""
    return overlaps(
        {split: _texts(directory, split, beat) for split in SPLITS if split != "train"}, _texts(directory, "train", beat)
    )


def _texts(directory: Path, split: str, beat: Callable[[], None]) -> Iterator[str]:
    for batch in load_split(directory, split).select_columns("text").iter(batch_size=256):
        beat()
        yield from batch["text"]


def check_sizes(splits: dict[str, SplitStatistics], gates: Gates, config: Config) -> None:
    """Raise DataError when a split has too few documents to train or to measure on."""
    small = [name for name, split in splits.items() if split.documents < config.min_split_documents]
    if not small:
        return
    sizes = ", ".join(f"{name} {split.documents}" for name, split in splits.items())
    dropped = sum(row["count"] for row in gates.table() if row["action"] == "drop")
    note = f" ({dropped:,} records were dropped before)" if dropped else ""
    raise DataError(
        f"split{'s' * (len(small) > 1)} {', '.join(small)} would be too small: {sizes} documents; at least "
        f"{config.min_split_documents} each are needed{note}. Give more text, or make more documents of it (documents=paragraph "
        "or line, a smaller document_characters), or raise validation_fraction and test_fraction"
    )


def check_overlap(found: dict[str, Overlap], most: float) -> None:
    """Raise DataError when too much of a split can be found again in train."""
    for split, overlap in found.items():
        if overlap.share > most:
            raise DataError(
                f"{overlap.contained:,} of {overlap.num_documents:,} {split} documents ({overlap.share:.1%}) can be found again "
                f"in train; max_overlap allows {most:.1%}. Lower near_duplicate_threshold so that more copies go, "
                "make documents longer, or raise max_overlap and read results on this split as too good"
            )
