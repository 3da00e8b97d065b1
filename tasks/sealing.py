"""Stage 13, and the plan before stage 8: signed statements in the chain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sft_core.config import PipelineConfig
from sft_core.lineage.chain import append, head_path
from sft_core.lineage.membership import training_set
from sft_core.lineage.statements import BUNDLE, signed_bundle, stage_statements
from sft_core.records import sha256_json
from sft_core.reports import DatasetRef, FileRef, RunRecord, StageReport, Table
from sft_core.store import home, is_stored, locate, put_bytes, writing
from tasks.gates import source_of
from tasks.stage import stage, tracking

_FOR_PEOPLE = ("data_card", "page", "model_card", "exports")
"""Stages whose files and figures are all put where people look."""


@stage("plan", cached=False)
def seal_plan(record: RunRecord, config: PipelineConfig, data: DatasetRef) -> StageReport:
    """Signs every limit before training: what counts as a pass is fixed before the result."""
    policy = config.policy
    statement = append(
        "plan",
        [("policy", policy.sha256), ("train", data.sha256)],
        {
            "run_id": record.run_id,
            "config_sha256": config.sha256,
            "policy": policy.model_dump(mode="json"),
        },
    )
    _show(statement)
    limits = tuple(
        (
            name,
            "not judged" if limit is None else limit,
            "advisory" if name in policy.advisory else "required",
            source_of(policy, name),
        )
        for name, limit in policy.limits.items()
    )
    waivers = tuple((w.limit, w.reason, w.person, str(w.expires)) for w in policy.waivers)
    return StageReport(
        stage="plan",
        tables={
            "limits": Table(columns=("policy", "limit", "kind", "source"), rows=limits),
            "waivers": Table(columns=("policy", "reason", "person", "expires"), rows=waivers),
        },
        files={"statement": statement},
    )


@stage("seal", cached=False)
def seal(record: RunRecord) -> StageReport:
    """Signs the run, puts card and evidence where people look, and the statement into MLflow."""
    config = _put_json(record.config)
    code = record.provenance["code"]
    documents = {f"reports/{r.stage}.json": put_bytes(r.to_json(), ".json") for r in record.reports}
    documents |= {
        "config.json": config,
        "run.json": _put_json(record.model_dump(mode="json")),
        BUNDLE: put_bytes(signed_bundle(stage_statements(record, code)), ".jsonl"),
    }
    refs = [*documents.values(), *(ref for r in record.reports for ref in r.refs())]
    evidence = {ref.path: ref.sha256 for ref in refs if is_stored(ref)}
    published = _published(record, documents)
    folder = f"runs/{record.run_id}"
    evidence |= {f"{folder}/{name}": ref.sha256 for name, ref in published.items()}
    predicate: dict[str, Any] = {
        "run_id": record.run_id,
        "flow": record.flow,
        "flow_run_id": record.flow_run_id,
        "outcome": record.outcome,
        "verdict": record.verdict,
        "record": documents["run.json"].sha256,
        "config_sha256": sha256_json(record.config),
        "policy_sha256": sha256_json(record.config["policy"]),
        "code": code,
        "environment": record.provenance["environment"],
        "base": _base(record),
        "training_set": _training_set(record),
        "gates": [
            {"stage": stage_name, "verdict": gate.verdict} | gate.model_dump(mode="json")
            for stage_name, gate in record.gates
        ],
        "evidence": [{"path": p, "sha256": d} for p, d in sorted(evidence.items())],
    }
    subjects = [(f"{folder}/{name}", ref.sha256) for name, ref in sorted(published.items())]
    statement = append("run", subjects, predicate)
    _publish(record.run_id, published)
    _show(statement)
    return StageReport(stage="seal", files={"statement": statement})


def _show(statement: FileRef) -> None:
    """Copy statement and head to MLflow: a chain that is put back to before them is found."""
    name = f"{Path(statement.path).stem}.json"
    files = {f"statement-{name}": locate(statement), f"head-{name}": head_path()}
    tracking().call("log_files", files, "record")


def _put_json(value: Any) -> FileRef:
    """Keys stay in order, because the card shows tables in the order in which they were made."""
    return put_bytes(json.dumps(value, ensure_ascii=False, allow_nan=False).encode(), ".json")


def _training_set(record: RunRecord) -> dict[str, Any] | None:
    account = record.report("account")
    if account is None or record.report("train") is None:
        return None
    return training_set(pq.read_table(locate(account.files["ledger"])))


def _base(record: RunRecord) -> dict[str, Any] | None:
    for report in record.reports:
        for ref in report.models.values():
            if not is_stored(ref):
                return ref.model_dump(mode="json")
    return None


def _published(record: RunRecord, documents: dict[str, FileRef]) -> dict[str, FileRef]:
    """What a person reads, by file name."""
    named = {name: documents[name] for name in ("config.json", "run.json", BUNDLE)}
    for report in record.reports:
        if report.stage in _FOR_PEOPLE:
            shown = {**report.files, **report.figures}
            named |= {f"{key}{locate(ref).suffix}": ref for key, ref in shown.items()}
        for key in ("ledger", "validation"):
            if key in report.files:
                named[f"{key}{locate(report.files[key]).suffix}"] = report.files[key]
    return named


def _publish(run_id: str, published: dict[str, FileRef]) -> None:
    """Copy it to `runs/<run id>/` and to MLflow."""
    folder = home() / "runs" / run_id
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, ref in published.items():
            (folder / name).write_bytes(locate(ref).read_bytes())
    tracking().call("log_files", {name: folder / name for name in published}, "record")
