"""Stage 2: rows that cannot be trained on go to quarantine, judged by Great Expectations."""

from __future__ import annotations

import pandas as pd

from data_checks.features import features_of
from sft_core.config import ValidationConfig
from sft_core.records import dropped_rows
from sft_core.reports import DatasetRef, StageReport, Table
from sft_core.store import put_bytes, read_records
from tasks.sieve import sieve
from tasks.stage import at_least, at_most, stage


@stage(
    "validate",
    gates=(at_most("dropped_rate", "max_rejected_rate"), at_least("num_rows_out", "min_rows")),
)
def validate(data: DatasetRef, config: ValidationConfig) -> StageReport:
    """Rows that meet every expectation; `validation.html` shows the suite's results."""
    # Great Expectations takes seconds to import: only when there is something to judge.
    from data_checks.expectations import validate_features

    frame = pd.DataFrame([dict(features_of(record)) for record in read_records(data)])
    validation = validate_features(frame, config)
    expectations = Table(
        columns=("reason", "expectation", "column", "failed rows"),
        rows=tuple((e.reason, e.name, e.column, e.num_failed) for e in validation.expectations),
    )
    decisions = dropped_rows(validation.decisions())
    judged = ((record, decisions.get(record.row)) for record in read_records(data))
    return sieve("validate", data, judged).plus(
        tables={"expectations": expectations},
        files={"validation": put_bytes(validation.to_html().encode(), ".html")},
    )
