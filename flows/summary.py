"""One screen that tells how a run ended: stages, gates, base against tuned, where to look."""

from __future__ import annotations

import os

from pydantic import ValidationError

from sft_core.documents.card import number
from sft_core.errors import IntegrityError
from sft_core.reports import RunRecord, StageReport
from sft_core.store import home


def load_run(run_id: str) -> RunRecord | None:
    """The published record of a run; None when the run ended before it was written."""
    path = home() / "runs" / run_id / "run.json"
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise IntegrityError(f"{path}: not a readable run record.") from error


def describe_run(record: RunRecord) -> str:
    """Plain text of about 40 lines, 80 columns."""
    lines = [
        "",
        f"{record.config['name']}: {record.verdict.upper()} (the run {record.outcome})",
        "",
        f"{'stage':<15}{'rows in':>9}{'rows out':>10}  gates",
    ]
    lines += [_stage_line(report) for report in record.reports if report.stage != "seal"]
    lines += _results(record.report("evaluate"))
    lines += ["", *_places(record)]
    return "\n".join(lines)


def _stage_line(report: StageReport) -> str:
    rows = [report.metrics.get(f"num_rows_{end}") for end in ("in", "out")]
    shown = ["" if value is None else f"{value:,.0f}" for value in rows]
    gates = ", ".join(
        f"{g.metric} {number(g.value)} {'<=' if g.direction == 'max' else '>='} "
        f"{number(g.limit)}: {g.verdict.upper() if g.verdict != 'pass' else 'pass'}"
        for g in report.gates
    )
    return f"{report.stage:<15}{shown[0]:>9}{shown[1]:>10}  {gates}".rstrip()


def _results(report: StageReport | None) -> list[str]:
    if report is None or "results" not in report.tables:
        return []
    table = report.tables["results"]
    widths = [
        max(len(number(row[i])) for row in (table.columns, *table.rows))
        for i in range(len(table.columns))
    ]
    return [
        "",
        *(
            "  ".join(
                number(cell).ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in (table.columns, *table.rows)
        ),
    ]


def _places(record: RunRecord) -> list[str]:
    folder = home() / "runs" / record.run_id
    versions = record.report("register")
    lines = []
    for name, version, verdict in versions.tables["versions"].rows if versions else ():
        alias = "candidate" if verdict == "pass" else "none moved"
        lines.append(f"model    {name} version {version}, alias: {alias}")
    return [
        *lines,
        f"report   {folder / 'report.html'}",
        f"card     {folder / 'README.md'}",
        f"ledger   {folder / 'ledger.parquet'}",
        f"check    tunetrail verify {record.run_id}",
        f"look     {os.environ.get('MLFLOW_TRACKING_URI') or _local_ui()}",
    ]


def _local_ui() -> str:
    return f"mlflow ui --backend-store-uri sqlite:///{home() / 'mlflow.db'}"
