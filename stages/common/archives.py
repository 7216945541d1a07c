"""Read chosen members of a package's archive without unpacking it: wheel and zip, tar in any compression, Debian's .deb.

Nothing is written to disk and nothing of an archive is run. Names that would leave a folder, links and members above the
size limit are refused. A .deb is an `ar` archive (deb(5), ar(5)) that holds `data.tar.*`.
"""

from __future__ import annotations

import fnmatch
import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.errors import CardError

MAX_BYTES = 1 << 30
"""Limit for all chosen members together; above it an archive is taken for a decompression bomb."""

_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60


def read_members(archive: Path, patterns: Iterable[str], *, max_bytes: int = MAX_BYTES) -> dict[str, bytes]:
    """Return {name: content} of the members that match any of `patterns`, sorted by name.

    Args:
        archive: a .whl, .zip, .tar(.gz, .bz2, .xz), .tgz or .deb file, told apart by content.
        patterns: names in the archive; `*` stands for any characters, `/` among them.
        max_bytes: limit for the members together, after decompression.

    Raises:
        CardError: a pattern matches nothing, a name is unsafe, a member is a link or too large, the archive is broken.
    """
    wanted = list(patterns)
    members: dict[str, bytes] = {}
    total = 0
    try:
        for name, stream in _chosen(archive, wanted):
            content = stream.read(max_bytes - total + 1)
            total += len(content)
            if total > max_bytes:
                raise CardError(f"{archive.name}: member '{name}' passes the limit of {max_bytes:,} bytes; not read")
            members[name] = content
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise CardError(f"{archive.name}: the archive cannot be read ({error})") from None
    for pattern in wanted:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in members):
            raise CardError(f"{archive.name}: no member matches '{pattern}'; correct 'member' in the data card")
    return dict(sorted(members.items()))


def _chosen(archive: Path, patterns: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with open(archive, "rb") as file:
        magic = file.read(8)
        file.seek(0)
        if magic == _AR_MAGIC:
            yield from _from_tar(io.BytesIO(_data_of_deb(file)), patterns)
        elif magic.startswith(b"PK"):
            yield from _from_zip(file, patterns)
        else:
            yield from _from_tar(file, patterns)


def _from_zip(file: IO[bytes], patterns: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir() and _matches(info.filename, patterns):
                with archive.open(info) as stream:
                    yield info.filename, stream


def _from_tar(file: IO[bytes], patterns: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for info in archive:
            name = info.name.removeprefix("./")
            if info.isdir() or not _matches(name, patterns):
                continue
            stream = archive.extractfile(info) if info.isfile() else None
            if stream is None:
                raise CardError(f"member '{name}' is a link or a device, not a file; not read")
            yield name, stream


def _matches(name: str, patterns: list[str]) -> bool:
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
        return False
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in PurePosixPath(name).parts:
        raise CardError(f"member '{name}': a name must stay inside its archive; not read")
    return True


def _data_of_deb(file: IO[bytes]) -> bytes:
    """Return the content of `data.tar.*`: after the magic come headers of 60 bytes, each with a name and a decimal size."""
    file.seek(len(_AR_MAGIC))
    while header := file.read(_AR_HEADER):
        if len(header) < _AR_HEADER or header[58:] != b"`\n":
            raise ValueError("broken ar header")
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        if name == "data.tar.zst":
            raise ValueError("data.tar.zst: this Python cannot read zstd; use a package built with xz")
        if name.startswith("data.tar"):
            return file.read(min(size, MAX_BYTES))
        file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("no data.tar in this .deb")
