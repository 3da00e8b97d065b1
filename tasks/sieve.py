"""Applies a stage's decisions to its rows: what stays, what goes to quarantine, what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sft_core.errors import IntegrityError
from sft_core.lineage.ledger import decision_file
from sft_core.records import Decision, Record
from sft_core.reports import DatasetRef, FileRef, StageReport, Table
from sft_core.store import record_file
from tasks.progress import watched


def sieve(
    stage: str, data: DatasetRef, judged: Iterable[tuple[Record, Decision | None]]
) -> StageReport:
    """The report of a stage that drops or changes rows, in one pass over them.

    `judged` yields every row of `data` in order, with the decision about it: a kept row as it goes
    on, a dropped one as it came, for quarantine. The metrics are `num_rows_in`, `num_rows_out`,
    `num_dropped` and `dropped_rate`; `StageReport.plus` adds what else the stage has measured.

    Raises:
        IntegrityError: rows out and rows dropped do not add up to rows in.
    """
    reasons: Counter[str] = Counter()
    with record_file() as kept, record_file("quarantine") as dropped, decision_file() as decisions:
        for record, decision in watched(judged, stage, data.num_rows):
            if decision is not None:
                decisions.add(decision)
            if decision is not None and decision.action == "dropped":
                reasons[decision.reason] += 1
                dropped.add(record)
            else:
                kept.add(record)
    if kept.num_rows + dropped.num_rows != data.num_rows:
        raise IntegrityError(
            f"{stage}: {data.num_rows:,} rows in, {kept.num_rows:,} out and "
            f"{dropped.num_rows:,} dropped do not add up."
        )
    rejected = FileRef(path=dropped.ref.path, sha256=dropped.ref.sha256)
    return StageReport(
        stage=stage,
        metrics={
            "num_rows_in": data.num_rows,
            "num_rows_out": kept.num_rows,
            "num_dropped": dropped.num_rows,
            "dropped_rate": dropped.num_rows / data.num_rows if data.num_rows else 0.0,
        },
        tables={"dropped": Table(columns=("reason", "rows"), rows=tuple(sorted(reasons.items())))},
        datasets={"data": kept.ref},
        files={"decisions": decisions.ref},
        private={"dropped": rejected} if dropped.num_rows else {},
    )
