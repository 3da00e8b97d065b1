"""A run's record made by hand: small enough to count, with rows and a figure in the store."""

import hashlib

from sft_core.config import PipelineConfig
from sft_core.documents.figures import bars
from sft_core.records import Record
from sft_core.reports import FileRef, Gate, RunRecord, StageReport, Table
from sft_core.store import put_bytes
from tests.conftest import put_records


def rows(first, count):
    """Chats with distinct numbers."""
    for row in range(first, first + count):
        turns = [
            {"role": "user", "content": f"What is {row} plus one?"},
            {"role": "assistant", "content": f"It is {row + 1}."},
        ]
        yield Record(row, hashlib.sha256(str(row).encode()).hexdigest(), turns, {"site": "north"})


def dropped(reasons):
    return Table(columns=("reason", "rows"), rows=tuple(reasons.items()))


def small_record(**config):
    """Ten rows: one is rejected, one is dropped as a duplicate, one leaks; 5 train, 1, 1 are left.

    `config` replaces whole sections.
    """
    values = PipelineConfig().model_dump(mode="json")
    values["ingest"]["sources"] = [
        values["ingest"]["sources"][0]
        | {"path": "data/sums.jsonl", "licence": "CC0-1.0", "subgroups": ["site"]}
    ]
    values |= config
    source = values["ingest"]["sources"][0]
    digest = hashlib.sha256(b"the source").hexdigest()
    read = (source["path"], source["licence"], source["consent"], 10, digest)
    gate = Gate(
        metric="dropped_rate",
        value=0.1,
        limit=0.05,
        direction="max",
        key="policy.max_rejected_rate",
    )
    blind = Gate(
        metric="label_disparity",
        value=None,
        limit=0.1,
        direction="max",
        key="policy.max_label_disparity",
    )
    plot = put_bytes(bars(["a"], {"rows": [0.5]}, x="share"), ".png")
    splits = {
        "train": put_records(rows(0, 6)),
        "validation": put_records(rows(6, 1)),
        "test": put_records(rows(7, 1)),
    }
    reports = (
        StageReport(
            stage="ingest",
            metrics={"num_rows_out": 10, "num_sources": 1},
            tables={
                "sources": Table(
                    columns=("source", "licence", "consent", "rows", "sha256"), rows=(read,)
                )
            },
        ),
        StageReport(
            stage="validate",
            metrics={"num_rows_in": 10, "num_rows_out": 9, "num_dropped": 1, "dropped_rate": 0.1},
            gates=(gate,),
            tables={"dropped": dropped({"missing_value": 1})},
        ),
        StageReport(
            stage="protect",
            metrics={
                "num_rows_in": 9,
                "num_rows_out": 9,
                "num_dropped": 0,
                "num_redacted_rows": 4,
            },
            tables={
                "dropped": dropped({}),
                "identifiers": Table(columns=("kind", "found"), rows=(("email", 4),)),
            },
        ),
        StageReport(
            stage="deduplicate",
            metrics={"num_rows_in": 9, "num_rows_out": 8, "num_dropped": 1},
            tables={"dropped": dropped({"near_duplicate": 1})},
        ),
        StageReport(stage="split", metrics={"num_rows_in": 8, "num_rows_out": 8}, datasets=splits),
        StageReport(
            stage="decontaminate",
            metrics={"num_rows_in": 6, "num_rows_out": 5, "num_dropped": 1},
            tables={"dropped": dropped({"contaminated": 1})},
            datasets={"data": put_records(rows(0, 5))},
        ),
        StageReport(
            stage="audit_bias",
            gates=(blind,),
            not_measured={"label_disparity": "no group has 20 rows"},
            tables={"representation": Table(columns=("group", "rows"), rows=(("older", 3),))},
            figures={"mentions": plot},
        ),
        StageReport(
            stage="account",
            tables={
                "fates": Table(
                    columns=("fate", "rows"),
                    rows=(("dropped", 3), ("train", 5), ("validation", 1), ("test", 1)),
                )
            },
            files={"ledger": FileRef(path="store/ledger.parquet", sha256=digest)},
        ),
    )
    return RunRecord(
        run_id="0123456789abcdef",
        flow="audit",
        flow_run_id="flow",
        config=values,
        outcome="completed",
        reports=reports,
    )


def with_report(record, report):
    """The record with one more stage, or another report of a stage that it has."""
    kept = [report if r.stage == report.stage else r for r in record.reports]
    if report.stage not in {r.stage for r in kept}:
        kept.append(report)
    return record.model_copy(update={"reports": tuple(kept)})
