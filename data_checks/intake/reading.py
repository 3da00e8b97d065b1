"""Reads sources row by row: JSONL, CSV, Parquet (the first two also `.gz`), `datasets` folders,
hub ids.

Damage to the file itself (broken JSON, a wrong encoding, a truncated archive) stops the run: a
file that was cut off in transfer must not pass as a smaller data set. What is wrong with a single
row's shape is the business of validation.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from sft_core.config import SourceConfig
from sft_core.errors import DataError

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
HUB_ID = re.compile(r"[\w-]+/[\w.-]+|[\w-]+")
"""A name on the hub, if no file or folder has it."""
Row = tuple[int, dict[str, Any]]
"""Line number (1-based; row number for Parquet and data sets) and the row's columns."""


def read_rows(source: SourceConfig, max_line_bytes: int) -> Iterator[Row]:
    """The rows of a source in order; blank lines are passed over.

    Raises:
        DataError: the source is missing, empty or damaged; the message says where.
    """
    count = 0
    for line, row in _rows(source, max_line_bytes):
        if source.max_rows is not None and count >= source.max_rows:
            break
        count += 1
        yield line, row
    if count == 0:
        raise DataError(f"{source.path}: no rows. The file is empty; check the path.")


def _rows(source: SourceConfig, max_line_bytes: int) -> Iterator[Row]:
    path = Path(source.path)
    kind = source.format if source.format != "auto" else _format_of(path)
    if kind == "datasets":
        return _read_dataset(source)
    if not path.exists():
        raise DataError(f"{path}: no such file. Check its path in the config.")
    if not path.is_file():
        raise DataError(f"{path}: is not a file. Name a file, or a folder saved by `datasets`.")
    reader = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}[kind]
    return reader(path, max_line_bytes)


def _format_of(path: Path) -> str:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if path.is_dir() or (not path.exists() and HUB_ID.fullmatch(str(path))):
        return "datasets"
    if not path.exists():
        raise DataError(f"{path}: no such file. Check its path in the config.")
    raise DataError(
        f"{path}: the name ends in {suffix or 'nothing'!r}, allowed: {', '.join(_SUFFIXES)} "
        "(.gz after .jsonl or .csv). Rename it, or name the format in ingest.sources.format."
    )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Bytes of a file, decompressed, without a byte-order mark."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
            file: Any = io.BufferedReader(raw)
            if file.peek(3)[:3] == b"\xef\xbb\xbf":
                file.read(3)
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: the archive is damaged or cut off. Fetch the file again."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error


def _lines(path: Path, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    with _opened(path) as file:
        number = 0
        while line := file.readline(max_line_bytes + 1):
            number += 1
            if len(line) > max_line_bytes:
                raise DataError(
                    f"{path}: line {number} is longer than {max_line_bytes:,} bytes. "
                    "Split the row; for sources, ingest.max_line_bytes raises the limit."
                )
            yield number, line


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: line {number}: byte {error.start + 1} is not UTF-8. "
            "Convert the file to UTF-8."
        ) from error


def _read_jsonl(path: Path, max_line_bytes: int) -> Iterator[Row]:
    for number, line in _lines(path, max_line_bytes):
        if line.isspace():
            continue
        row = _parse_fast(line)
        if row is None:
            row = _parse_exactly(path, number, _decoded(path, number, line))
        yield number, row


def _parse_fast(line: bytes) -> dict[str, Any] | None:
    """The object on a line; None where orjson could differ from the exact parser.

    orjson keeps the last of two equal keys in silence. A line whose strings are as many as those
    of its object has lost none: each stands between two quotes, and no other quote is unescaped.
    """
    try:
        row = orjson.loads(line)
        num_strings = _num_strings(row)
    except (orjson.JSONDecodeError, RecursionError):
        return None
    text = line.replace(rb"\\", b"")
    num_quotes = text.count(b'"') - text.count(rb"\"")
    return row if isinstance(row, dict) and num_quotes == 2 * num_strings else None


def _num_strings(value: Any) -> float:
    """Strings in a JSON value, keys included; NaN where orjson made a float of a long integer."""
    if isinstance(value, str):
        return 1
    if isinstance(value, dict):
        return len(value) + sum(map(_num_strings, value.values()))
    if isinstance(value, list):
        return sum(map(_num_strings, value))
    return math.nan if isinstance(value, float) and abs(value) >= 2**63 else 0


def _parse_exactly(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {number}, column {error.colno}: not JSON ({error.msg}). "
            "Is the file cut off?"
        ) from None
    except _DuplicateKeyError:
        raise DataError(
            f"{path}: line {number}: a key stands twice in one object. Keep one."
        ) from None
    except (RecursionError, ValueError):
        raise DataError(
            f"{path}: line {number}: a number is too long or the nesting is too deep."
        ) from None
    if not isinstance(row, dict):
        raise DataError(
            f"{path}: line {number}: found a {type(row).__name__}, expected a JSON object."
        )
    return row


class _DuplicateKeyError(ValueError):
    """A JSON object names a key twice: the parser would keep the last in silence."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _DuplicateKeyError
    return row


def _read_csv(path: Path, max_line_bytes: int) -> Iterator[Row]:
    csv.field_size_limit(max_line_bytes)
    reader = csv.reader(
        (_decoded(path, number, line) for number, line in _lines(path, max_line_bytes)), strict=True
    )
    header: list[str] = []
    next_line = 1
    try:
        for cells in reader:
            line, next_line = next_line, reader.line_num + 1  # a row may be several lines long
            if not cells:
                continue
            if not header:
                header = cells
                if len(set(header)) != len(header):
                    raise DataError(f"{path}: line 1: a column name stands twice. Rename one.")
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}: line {line}: {len(cells)} cells, expected {len(header)}. "
                    "Is a quote missing?"
                )
            yield line, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV ({error}).") from None


def _read_parquet(path: Path, max_line_bytes: int) -> Iterator[Row]:  # noqa: ARG001
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1_000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file. Fetch the file again.") from error


def _read_dataset(source: SourceConfig) -> Iterator[Row]:
    import datasets

    unreadable = (OSError, ValueError, datasets.exceptions.DatasetsError)
    try:
        if Path(source.path).is_dir():
            data = datasets.load_from_disk(source.path)
        else:
            data = datasets.load_dataset(
                source.path, split=source.split, revision=source.revision, streaming=True
            )
    except unreadable as e:
        raise DataError(
            f"{source.path}: neither a folder saved by `datasets` nor a hub data set that can be "
            f"reached ({type(e).__name__}). Check ingest.sources.path and split."
        ) from e
    if isinstance(data, datasets.DatasetDict):
        if source.split not in data:
            raise DataError(
                f"{source.path}: no split {source.split!r}, found {', '.join(data)}. "
                "Set ingest.sources.split."
            )
        data = data[source.split]
    number = 0
    try:
        for row in data:
            number += 1
            yield number, row
    except unreadable as e:
        raise DataError(
            f"{source.path}: row {number + 1} cannot be read ({type(e).__name__}). Try again."
        ) from e
