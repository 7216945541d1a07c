"""Records out of files: plain text, JSON lines, JSON, CSV, TSV, Parquet, and gzip of these, in bounded memory.

A reader never guesses and never drops in silence: what it cannot read comes out as a Finding with file and row.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError
from stages.common.literature import LITERATURE
from stages.common.plain_text import TextCut, text_records
from stages.common.records import Finding, Record, SourceFile

MAX_LINE_BYTES = 1 << 26
"""A JSON line or a CSV field above 64 MiB is a fault, so that one line cannot fill the memory."""
MAX_WHOLE_BYTES = 1 << 30
"""JSON and the special formats are parsed as a whole, up to 1 GiB; JSON lines have no limit."""

Item = Record | Finding
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
READERS = ("text", "jsonl", "json", "csv", "tsv", "parquet", *LITERATURE)


def read_records(file: SourceFile, *, reader: str | None, cut: TextCut) -> Iterator[Item]:
    """Yield the records of `file` in its order, and findings.

    Args:
        file: what to read.
        reader: one of READERS; None chooses by the suffix of the name (an unknown suffix is plain text).
        cut: how text becomes documents.

    Raises:
        DataError: the file as a whole cannot be read: not what its name says, UTF-16, a broken gzip stream.
    """
    try:
        with file.open() as raw:
            yield from _read(file, raw, reader, cut)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{file.name}: the gzip stream is broken or cut off ({error}); fetch the file again") from None
    except OSError as error:
        raise DataError(f"{file.name}: cannot be read: {error.strerror or error}; check the file and its permissions") from None


def _read(file: SourceFile, raw: IO[bytes], reader: str | None, cut: TextCut) -> Iterator[Item]:
    name, stream = file.name, raw
    if _starts(stream)[:2] == b"\x1f\x8b":
        if not name.endswith(".gz"):
            yield Finding("gzip_name", file.name, 0, "its content is gzip, its name does not say so; read as gzip")
        name, stream = name.removesuffix(".gz"), cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    elif name.endswith(".gz"):
        raise DataError(f"{file.name}: the name says gzip, the content is not; rename the file")
    kind = reader or _SUFFIXES.get(name[name.rfind(".") :].lower() if "." in name else "", "text")
    start = _starts(stream)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") and kind != "parquet":
        raise DataError(f"{file.name}: this is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {file.name} > utf8-{file.name}")
    if start[:3] == b"\xef\xbb\xbf":
        stream.read(3)
        yield Finding("byte_order_mark", file.name, 1, "a byte order mark opens the file; removed")
    yield from _dispatch(kind, file.name, stream, cut)


def _starts(stream: IO[bytes]) -> bytes:
    start = stream.read(4)
    stream.seek(0)
    return start


def _dispatch(kind: str, name: str, stream: IO[bytes], cut: TextCut) -> Iterator[Item]:
    if kind == "text":
        return text_records(name, stream, cut)
    if kind in LITERATURE:
        return LITERATURE[kind](name, _whole(name, stream), cut)
    readers: dict[str, Callable[[str, IO[bytes]], Iterator[Item]]] = {
        "jsonl": _json_lines,
        "json": _json_whole,
        "csv": _csv,
        "tsv": _csv,
        "parquet": _parquet,
    }
    return readers[kind](name, stream)


def _whole(name: str, stream: IO[bytes]) -> bytes:
    content = stream.read(MAX_WHOLE_BYTES + 1)
    if len(content) > MAX_WHOLE_BYTES:
        raise DataError(f"{name}: above 1 GiB; this format is read as a whole, JSON lines (.jsonl) have no such limit")
    return content


def _json_lines(name: str, stream: IO[bytes]) -> Iterator[Item]:
    row = 0
    while line := stream.readline(MAX_LINE_BYTES):
        row += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            yield Finding("bad_record", name, row, f"a line above {MAX_LINE_BYTES:,} bytes")
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            continue
        if line.strip():
            yield _json_line(name, row, line)


def _json_line(name: str, row: int, line: bytes) -> Item:
    text, escaped = _decode(line)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        cut_off = "" if line.endswith(b"\n") else "the last line is cut off, "
        return Finding("bad_record", name, row, f"{cut_off}not valid JSON ({error}): {text[:60]!r}")
    if not isinstance(fields, dict):
        return Finding("bad_record", name, row, f"a line must hold a JSON object, this is {type(fields).__name__}: {text[:60]!r}")
    return Record(name, row, fields, escaped=escaped)


def _json_whole(name: str, stream: IO[bytes]) -> Iterator[Item]:
    """Read a list of objects, or an object of objects whose keys become the column `key`; bare strings become `text`."""
    text, escaped = _decode(_whole(name, stream))
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not valid JSON ({error}); if it holds one object a line, name it .jsonl") from None
    rows: Iterable[tuple[int | str, Any]]
    if isinstance(values, dict):
        rows = values.items()
    elif isinstance(values, list):
        rows = enumerate(values, 1)
    else:
        raise DataError(f"{name}: a JSON file must hold a list of records or an object of records")
    for row, value in rows:
        fields = value if isinstance(value, dict) else {"text": value}
        keyed = {"key": row, **fields} if isinstance(row, str) else fields
        yield Record(name, row, keyed, escaped=escaped)


def _decode(content: bytes) -> tuple[str, bool]:
    try:
        return content.decode("utf-8"), False
    except UnicodeDecodeError:
        return content.decode("utf-8", "surrogateescape"), True


def _csv(name: str, stream: IO[bytes]) -> Iterator[Item]:
    csv.field_size_limit(MAX_LINE_BYTES)
    with io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="") as lines:
        yield from _csv_rows(name, csv.reader(lines, delimiter="\t" if ".tsv" in name else ",", strict=True))


def _csv_rows(name: str, rows: Iterator[list[str]]) -> Iterator[Item]:
    header = next(rows, [])
    if len(set(header)) != len(header):
        raise DataError(f"{name}: the header names a column twice: {', '.join(header)}; rename one")
    row = 1
    while True:
        row += 1
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Finding("bad_record", name, row, f"not valid CSV ({error})")
            continue
        if len(values) > len(header):
            yield Finding("bad_record", name, row, f"{len(values)} values for {len(header)} columns; quote values with commas")
        elif values:
            padded = [*values, *[None] * (len(header) - len(values))]
            yield Record(name, row, dict(zip(header, padded, strict=True)), escaped=True)


def _parquet(name: str, stream: IO[bytes]) -> Iterator[Item]:
    if not stream.seekable() or isinstance(stream, gzip.GzipFile):
        raise DataError(f"{name}: Parquet inside gzip is not read; decompress it (Parquet compresses its columns itself)")
    try:
        table = pq.ParquetFile(stream)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{name}: not a Parquet file ({error}); check the file, or its name") from None
    row = 0
    for batch in table.iter_batches(batch_size=512):
        columns = {column: _values(batch.column(index)) for index, column in enumerate(batch.schema.names)}
        for position in range(batch.num_rows):
            row += 1
            yield Record(name, row, {key: values[position] for key, values in columns.items()}, escaped=True)


def _values(column: pa.Array) -> list[Any]:
    """Arrow does not check UTF-8 when it reads; decode strings here, so that a bad one is found with its row."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return list(column.to_pylist())
    binary = column.cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in binary]
