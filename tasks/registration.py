"""Stage 12: a version in the MLflow registry; only a pass on every gate makes it a candidate."""

from __future__ import annotations

from sft_core.records import sha256_json
from sft_core.reports import RunRecord, StageReport, Table
from sft_core.store import locate
from tasks.stage import stage
from tasks.tracking import Tracker

CANDIDATE = "candidate"


@stage("register", cached=False)
def register(record: RunRecord) -> StageReport:
    """Registers the adapter with its verdict; a run without one registers nothing."""
    columns = ("model", "version", "alias")
    trained = record.report("train")
    if trained is None or "adapter" not in trained.models:
        return StageReport(stage="register", tables={"versions": Table(columns=columns, rows=())})
    adapter = trained.models["adapter"]
    card = record.report("model_card")
    alias = CANDIDATE if record.verdict == "pass" else ""
    tags = {
        "verdict": record.verdict,
        "run_id": record.run_id,
        "adapter_sha256": adapter.sha256,
        "base_sha256": str(adapter.base),
        "config_sha256": sha256_json(record.config),
        "card_sha256": card.files["README"].sha256 if card else "",
    }
    name = record.config["name"]
    version = Tracker().register(record, name, locate(adapter), tags, alias)
    rows = ((name, version, alias or "none moved"),)
    return StageReport(
        stage="register",
        metrics={"version": float(version)},
        tables={"versions": Table(columns=columns, rows=rows)},
    )
