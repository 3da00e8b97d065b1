"""Stage 12: a version in the MLflow registry; once sealed, a pass makes it a candidate."""

from __future__ import annotations

from sft_core.records import sha256_json
from sft_core.reports import RunRecord, StageReport, Table
from sft_core.store import check, locate
from tasks.stage import stage, tracking

CANDIDATE = "candidate"


@stage("register", cached=False)
def register(record: RunRecord) -> StageReport:
    """Registers the adapter with its verdict; a run without one registers nothing."""
    columns = ("model", "version", "verdict")
    trained = record.report("train")
    if trained is None:
        return StageReport(stage="register", tables={"versions": Table(columns=columns, rows=())})
    adapter = trained.models["adapter"]
    check(adapter)
    name = record.config["name"]
    version = tracking().call("register", record, name, locate(adapter), version_tags(record))()
    return StageReport(
        stage="register",
        metrics={"version": float(version)},
        tables={"versions": Table(columns=columns, rows=((name, version, record.verdict),))},
    )


def version_tags(record: RunRecord) -> dict[str, str]:
    """What a version says of its run; the run has trained an adapter."""
    trained, card = record.report("train"), record.report("model_card")
    assert trained is not None
    adapter = trained.models["adapter"]
    return {
        "verdict": record.verdict,
        "run_id": record.run_id,
        "adapter_sha256": adapter.sha256,
        "base_sha256": str(adapter.base),
        "config_sha256": sha256_json(record.config),
        "card_sha256": card.files["README"].sha256 if card else "",
    }


@stage("nominate", cached=False)
def nominate(record: RunRecord) -> StageReport:
    """Moves the alias `candidate` to the version, if every gate passed and the run is sealed."""
    registered, sealed = record.report("register"), record.report("seal")
    versions = registered.tables["versions"].rows if registered else ()
    if record.verdict != "pass" or sealed is None or not versions:
        return StageReport(stage="nominate")
    name, version, _ = versions[0]
    tracking().call("move_alias", str(name), CANDIDATE, str(version))()
    return StageReport(
        stage="nominate",
        tables={"alias": Table(columns=("alias", "version"), rows=((CANDIDATE, version),))},
    )
