"""Stage 1: read the sources into canonical records, and begin the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_checks.reading import read_rows
from data_checks.shaping import columns_of, shape_row
from sft_core.config import IngestConfig
from sft_core.lineage.ledger import SourceRow, put_source_rows
from sft_core.records import Record
from sft_core.reports import StageReport, Table
from sft_core.store import put_records, sha256_file, sha256_tree
from tasks.stage import stage


@stage("ingest")
def ingest(config: IngestConfig) -> StageReport:
    """Rows of all sources, in order, numbered through from 0."""
    origins: list[SourceRow] = []

    def records() -> Iterator[Record]:
        for source in config.sources:
            columns = None
            for line, row in read_rows(source, config.max_line_bytes):
                columns = columns or columns_of(source, row)
                record = shape_row(len(origins), row, columns, source)
                licence = row.get(columns.licence) if columns.licence else source.licence
                consent = row.get(columns.consent) if columns.consent else source.consent
                origins.append(
                    SourceRow(
                        record.row, record.row_id, source.path, line, str(licence), str(consent)
                    )
                )
                yield record

    data = put_records(records())
    counts = {s.path: sum(o.source == s.path for o in origins) for s in config.sources}
    rows = tuple(
        (s.path, s.licence, s.consent, counts[s.path], _digest(s.path)) for s in config.sources
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
