"""Stage 5: train, validation and test by a hash of the near-duplicate cluster."""

from __future__ import annotations

from data_checks.splitting import split_of
from sft_core.config import SplitConfig
from sft_core.lineage.ledger import put_decisions
from sft_core.records import SPLITS, Decision
from sft_core.reports import DatasetRef, StageReport
from sft_core.store import put_records, read_records
from tasks.stage import at_least, stage


@stage("split", gates=(at_least("num_test_rows", "min_test_rows"),))
def split(data: DatasetRef, config: SplitConfig) -> StageReport:
    """Three data sets; no cluster straddles two, and growing data moves no row."""
    splits = {r.row: split_of(r.cluster or r.row_id, config) for r in read_records(data)}
    datasets = {
        name: put_records(r for r in read_records(data) if splits[r.row] == name) for name in SPLITS
    }
    decisions = (Decision(row, name, "hash_of_cluster") for row, name in splits.items())
    metrics = {f"num_{name}_rows": float(ref.num_rows) for name, ref in datasets.items()}
    return StageReport(
        stage="split",
        metrics={"num_rows_in": data.num_rows, "num_rows_out": len(splits)} | metrics,
        datasets=datasets,
        files={"decisions": put_decisions(decisions)},
    )
