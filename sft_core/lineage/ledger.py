"""The row ledger: a line per source row, with what became of it, by which stage and why."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sft_core.errors import IntegrityError
from sft_core.records import SPLITS, Decision
from sft_core.reports import FileRef, StageReport
from sft_core.store import locate, put_bytes

_DECISIONS = pa.schema(
    [
        ("row", pa.int64()),
        ("action", pa.string()),
        ("reason", pa.string()),
        ("evidence", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class SourceRow:
    """Where a row came from, and the terms under which it may be used."""

    row: int
    row_id: str
    source: str
    line: int
    licence: str
    consent: str


def put_table(table: pa.Table) -> FileRef:
    """Store a table as Parquet; equal tables give equal bytes under one pyarrow version."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return put_bytes(buffer.getvalue(), ".parquet")


def put_source_rows(rows: Iterable[SourceRow]) -> FileRef:
    """Store the index that ingest makes: the first half of the ledger."""
    return put_table(pa.Table.from_pylist([asdict(row) for row in rows]))


def put_decisions(decisions: Iterable[Decision]) -> FileRef:
    """Store what one stage decided, in row order."""
    ordered = sorted(decisions, key=lambda d: (d.row, d.action))
    return put_table(pa.Table.from_pylist([asdict(d) for d in ordered], schema=_DECISIONS))


def read_table(ref: FileRef) -> list[dict[str, Any]]:
    """Rows of a stored Parquet table."""
    rows: list[dict[str, Any]] = pq.read_table(locate(ref)).to_pylist()
    return rows


def build_ledger(reports: Iterable[StageReport]) -> pa.Table:
    """Join the source rows with every stage's decisions.

    Columns: row, row_id, source, line, licence, consent, fate (`train`, `validation`, `test`,
    `dropped`, or `undecided` where the run ended before the split), stage, reason and evidence of
    the fate, and `redacted`, the kinds and counts of identifiers that were taken out of the text.
    """
    reports = list(reports)
    index = next((r.files["source_rows"] for r in reports if "source_rows" in r.files), None)
    if index is None:
        return pa.Table.from_pylist([])
    rows = read_table(index)
    story = {
        row["row"]: {"fate": "undecided", "stage": "", "reason": "", "evidence": "", "redacted": ""}
        for row in rows
    }
    for report in reports:
        if "decisions" not in report.files:
            continue
        for decision in read_table(report.files["decisions"]):
            entry = story[decision["row"]]
            if decision["action"] == "redacted":
                entry["redacted"] = decision["evidence"]
            elif entry["fate"] == "dropped":
                raise IntegrityError(
                    f"ledger: {report.stage} decided about row {decision['row']}, which "
                    f"{entry['stage']} had dropped."
                )
            else:
                entry |= {
                    "fate": decision["action"],
                    "stage": report.stage,
                    "reason": decision["reason"],
                    "evidence": decision["evidence"],
                }
    return pa.Table.from_pylist([row | story[row["row"]] for row in rows])


def count_fates(ledger: pa.Table) -> dict[str, int]:
    """Rows by fate; dropped rows by `stage: reason`."""
    counts: dict[str, int] = {}
    for row in ledger.to_pylist():
        dropped = row["fate"] == "dropped"
        key = f"{row['stage']}: {row['reason']}" if dropped else row["fate"]
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items()))


def check_conservation(ledger: pa.Table, splits: Mapping[str, int]) -> None:
    """Rows in = rows out + rows dropped, against the sizes of the final splits.

    Raises:
        IntegrityError: a row was lost or counted twice; the message names the split.
    """
    fates = count_fates(ledger)
    for split in SPLITS:
        if split in splits and fates.get(split, 0) != splits[split]:
            raise IntegrityError(
                f"ledger: {fates.get(split, 0):,} rows are marked {split}, but the {split} set "
                f"holds {splits[split]:,}."
            )
