"""`small_record` with what a model half adds to it: enough for every export."""

from datetime import UTC, datetime, timedelta

from sft_core.reports import FileRef, Gate, ModelRef, StageReport, Table
from sft_core.store import put_bytes
from tests.sft_core.small_record import small_record

ADAPTER, BASE = "ad" * 32, "ba" * 32
START = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


def tuned_record(**config):
    """A run in which answers got better for all, less so in the south, and robustness failed."""
    record = small_record(**config)
    items = put_bytes(b"item,score\n", ".csv")
    base = ModelRef(path="models/base", sha256=BASE)
    bias = Gate(
        metric="bias_shift",
        value=None,
        limit=1.0,
        direction="max",
        key="policy.max_bias_shift",
        required=False,
    )
    gain = Gate(
        metric="primary_gain",
        value=0.5,
        low=0.4,
        high=0.6,
        limit=0.1,
        direction="min",
        key="policy.min_primary_gain",
    )
    model_half = (
        StageReport(stage="tokenize", models={"base": base}),
        StageReport(
            stage="train",
            metrics={"total_flops": 1e12, "final_loss": 0.25},
            models={
                "base": base,
                "adapter": ModelRef(path=f"store/{ADAPTER}.dir", sha256=ADAPTER, base=BASE),
            },
        ),
        StageReport(
            stage="evaluate",
            metrics={
                "num_items": 20,
                "base_exact_match": 0.25,
                "tuned_exact_match": 0.75,
                "exact_match_gain": 0.5,
                "exact_match_gain_low": 0.4,
                "exact_match_gain_high": 0.6,
            },
            gates=(gain,),
            tables={
                "subgroups": Table(
                    columns=(
                        "dimension", "group", "items", "exact match, base", "exact match, tuned",
                        "95 % interval, tuned",
                    ),
                    rows=(
                        ("site", "north", 10, 0.25, 0.8, "0.7000 to 0.9000"),
                        ("site", "south", 10, 0.25, 0.7, "0.6000 to 0.8000"),
                    ),
                ),
                "subgroup_gaps": Table(
                    columns=("dimension", "largest difference"), rows=(("site", 0.1),)
                ),
            },
            files={"items": items},
        ),
        StageReport(
            stage="fairness", gates=(bias,), not_measured={"bias_shift": "the base is too weak"}
        ),
    )  # fmt: skip
    *data_half, account = record.reports
    reports = (*data_half, *model_half, account)
    minute = timedelta(minutes=1)
    return record.model_copy(
        update={
            "flow": "sft",
            "reports": reports,
            "inputs": {
                "train": (
                    FileRef(path=base.path, sha256=BASE),
                    FileRef.model_validate(
                        record.report("decontaminate").data.model_dump(include={"path", "sha256"})
                    ),
                ),
            },
            "times": {
                report.stage: (START + place * minute, START + (place + 1) * minute)
                for place, report in enumerate(reports)
            },
            "provenance": {
                "code": {"commit": "c0" * 20, "changes_sha256": ""},
                "environment": {
                    "python": "3.11.9",
                    "packages": {
                        "torch": {"version": "2.13.0+cpu", "record_sha256": "0" * 64},
                        "zope.interface": {"version": "8.0", "record_sha256": None},
                    },
                },
            },
        }
    )
