"""Applies a stage's decisions to its rows: what stays, what goes to quarantine, what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from sft_core.errors import IntegrityError
from sft_core.lineage.ledger import put_decisions
from sft_core.records import Decision, Record, dropped_rows, keep
from sft_core.reports import DatasetRef, StageReport, Table
from sft_core.store import put_records, quarantine, read_records


def sieve(
    stage: str,
    data: DatasetRef,
    decisions: Iterable[Decision],
    change: Callable[[Record], Record] = lambda record: record,
    **report: Any,
) -> StageReport:
    """The report of a stage that drops or changes rows.

    Kept rows pass through `change` into the store, dropped rows go to quarantine as they came. The
    metrics get `num_rows_in`, `num_rows_out`, `num_dropped` and `dropped_rate`.

    Raises:
        IntegrityError: rows out and rows dropped do not add up to rows in.
    """
    decisions = list(decisions)
    dropped = dropped_rows(decisions)
    kept = put_records(change(r) for r in keep(read_records(data), decisions))
    if kept.num_rows + len(dropped) != data.num_rows:
        raise IntegrityError(
            f"{stage}: {data.num_rows:,} rows in, {kept.num_rows:,} out and {len(dropped):,} "
            "dropped do not add up."
        )
    reasons = Counter(d.reason for d in dropped.values())
    private = {}
    if dropped:
        private["dropped"] = quarantine(r for r in read_records(data) if r.row in dropped)
    metrics = {
        "num_rows_in": data.num_rows,
        "num_rows_out": kept.num_rows,
        "num_dropped": len(dropped),
        "dropped_rate": len(dropped) / data.num_rows if data.num_rows else 0.0,
    }
    tables = {
        "dropped": Table(columns=("reason", "rows"), rows=tuple(sorted(reasons.items()))),
        **report.pop("tables", {}),
    }
    return StageReport(
        stage=stage,
        metrics=metrics | report.pop("metrics", {}),
        tables=tables,
        datasets={"data": kept} | report.pop("datasets", {}),
        files={"decisions": put_decisions(decisions)} | report.pop("files", {}),
        private=private,
        **report,
    )
