"""Stage 1: read the sources into canonical records, and begin the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from data_checks.reading import read_rows
from data_checks.shaping import columns_of, shape_row
from sft_core.config import IngestConfig
from sft_core.errors import DataError
from sft_core.lineage.ledger import SourceRow, put_source_rows
from sft_core.records import Record
from sft_core.reports import StageReport, Table
from sft_core.store import put_records, sha256_file, sha256_tree
from tasks.stage import stage

_HEAD_ROWS = 100
"""First rows of a source, of which one at least must have each column."""


@stage("ingest")
def ingest(config: IngestConfig) -> StageReport:
    """Rows of all sources, in order, numbered through from 0."""
    origins: list[SourceRow] = []
    counts: list[int] = []
    digests = [_digest(source.path) for source in config.sources]

    def records() -> Iterator[Record]:
        for source in config.sources:
            before = len(origins)
            rows = read_rows(source, config.max_line_bytes)
            head = list(islice(rows, _HEAD_ROWS))
            columns = columns_of(source, list(dict.fromkeys(c for _, row in head for c in row)))
            for line, row in chain(head, rows):
                record = shape_row(len(origins), row, columns, source)
                licence = row.get(columns.licence) if columns.licence else source.licence
                consent = row.get(columns.consent) if columns.consent else source.consent
                origins.append(
                    SourceRow(
                        record.row, record.row_id, source.path, line, str(licence), str(consent)
                    )
                )
                yield record
            counts.append(len(origins) - before)

    data = put_records(records())
    for source, digest in zip(config.sources, digests, strict=True):
        if _digest(source.path) != digest:
            raise DataError(f"{source.path}: changed while it was read. Run again.")
    rows = tuple(
        (s.path, s.licence, s.consent, count, digest)
        for s, count, digest in zip(config.sources, counts, digests, strict=True)
    )
    return StageReport(
        stage="ingest",
        metrics={"num_rows_out": data.num_rows, "num_sources": len(config.sources)},
        tables={
            "sources": Table(columns=("source", "licence", "consent", "rows", "sha256"), rows=rows)
        },
        datasets={"data": data},
        files={"source_rows": put_source_rows(origins)},
    )


def _digest(name: str) -> str:
    path = Path(name)
    if path.is_dir():
        return sha256_tree(path)
    return sha256_file(path) if path.is_file() else "hub data set"
