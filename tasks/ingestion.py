"""Stage 1: read the sources into canonical records, and begin the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

from data_checks.intake.reading import read_rows
from data_checks.intake.shaping import columns_of, shape_row
from data_checks.intake.terms import subject_pseudonym
from sft_core.config import IngestConfig, SourceConfig
from sft_core.errors import DataError
from sft_core.keys import pseudonym_key
from sft_core.lineage.ledger import SourceRow, source_row_file
from sft_core.records import Record
from sft_core.reports import StageReport, Table
from sft_core.store import record_file, sha256_file, sha256_tree
from tasks.progress import watched
from tasks.stage import stage

_HEAD_ROWS = 100
"""First rows of a source, of which one at least must have each column."""


@stage("ingest")
def ingest(config: IngestConfig) -> StageReport:
    """Rows of all sources, in order, numbered through from 0: all chats, or all plain text."""
    digests = [_digest(source.path) for source in config.sources]
    counts = []
    key = pseudonym_key()
    kinds: dict[bool, SourceConfig] = {}
    with record_file() as data, source_row_file() as origins:
        for source in config.sources:
            before = data.num_rows
            rows = _rows(source, config, before, key, kinds)
            for record, origin in watched(rows, "ingest", _expected_rows(source)):
                data.add(record)
                origins.add(origin)
            counts.append(data.num_rows - before)
    for source, digest in zip(config.sources, digests, strict=True):
        if _digest(source.path) != digest:
            raise DataError(f"{source.path}: changed while it was read. Run again.")
    table = tuple(
        (s.path, s.licence, s.consent, count, digest)
        for s, count, digest in zip(config.sources, counts, digests, strict=True)
    )
    return StageReport(
        stage="ingest",
        metrics={"num_rows_out": data.num_rows, "num_sources": len(config.sources)},
        tables={
            "sources": Table(columns=("source", "licence", "consent", "rows", "sha256"), rows=table)
        },
        datasets={"data": data.ref},
        files={"source_rows": origins.ref},
    )


def _rows(
    source: SourceConfig,
    config: IngestConfig,
    first: int,
    key: bytes,
    kinds: dict[bool, SourceConfig],
) -> Iterator[tuple[Record, SourceRow]]:
    """The rows of a source, numbered from `first`.

    `kinds` holds the first source of plain text (True) and of chats (False) so far.
    """
    rows = read_rows(source, config.max_line_bytes)
    head = list(islice(rows, _HEAD_ROWS))
    columns = columns_of(source, list(dict.fromkeys(c for _, row in head for c in row)))
    kinds.setdefault(bool(columns.text), source)
    if len(kinds) == 2:
        raise DataError(
            f"{source.path}: {kinds[True].path} is plain text and {kinds[False].path} is not; a "
            "run trains on one of the two. Run one after the other, or map the columns with "
            "ingest.sources.columns."
        )
    for number, (line, row) in enumerate(chain(head, rows), start=first):
        record = shape_row(number, row, columns, source)
        licence = row.get(columns.licence) if columns.licence else source.licence
        consent = row.get(columns.consent) if columns.consent else source.consent
        subject = subject_pseudonym(row.get(columns.subject) if columns.subject else None, key)
        yield (
            record,
            SourceRow(
                number,
                record.row_id,
                source.path,
                line,
                _stated(licence),
                _stated(consent),
                subject,
            ),
        )


def _expected_rows(source: SourceConfig) -> int | None:
    """About how many rows are to come, for the bar; None where that is not cheap to know."""
    path = Path(source.path)
    if path.suffix not in (".jsonl", ".ndjson", ".csv") or not path.is_file():
        return source.max_rows
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(partial(file.read, 1 << 20), b""))
    return min(lines, source.max_rows or lines)


def _stated(value: object) -> str:
    """A licence or a state of consent; an empty cell states none."""
    return "unknown" if value is None or value == "" else str(value)


def _digest(name: str) -> str:
    path = Path(name)
    if path.is_dir():
        return sha256_tree(path)
    return sha256_file(path) if path.is_file() else "hub data set"
