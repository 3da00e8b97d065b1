"""Walks the sealed runs from a row: what became of it, on what evidence, which models saw it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sft_core.errors import ConfigError
from sft_core.lineage.chain import read_chain
from sft_core.lineage.signing import public_key
from sft_core.records import canonical_json
from sft_core.reports import FileRef, RunRecord
from sft_core.store import check, home, locate, put_bytes

RUN = "urn:tunetrail:run:v1"
_MIN_PREFIX = 8
_PLACE = re.compile(r"(?P<file>.+):(?P<line>[0-9]+)")
_OTHER_ROW = re.compile(r"\brow=([0-9]+)")

Story = dict[str, Any]
"""JSON values: what `trace --json` prints."""


def sealed_runs() -> list[RunRecord]:
    """The records of all runs in the chain, the newest first.

    Raises:
        IntegrityError: the chain does not hold, or a record is missing or was changed.
    """
    if not (home() / "chain").exists():
        return []
    entries = [e for e in read_chain(public_key()) if e.statement["predicateType"] == RUN]
    # A run that was killed after it had been sealed is sealed again: the last one counts.
    last = {entry.predicate["run_id"]: entry for entry in entries}
    digests = [e.predicate["record"] for e in reversed(entries) if last[e.predicate["run_id"]] is e]
    refs = [FileRef(path=f"store/{digest}.json", sha256=digest) for digest in digests]
    return [RunRecord.model_validate_json(_checked(ref).read_bytes()) for ref in refs]


def sealed_run(run_id: str) -> RunRecord | None:
    """The record of one run; None where the chain has none of it.

    Raises:
        IntegrityError: as `sealed_runs`.
    """
    return next((run for run in sealed_runs() if run.run_id == run_id), None)


def trace_row(key: str) -> Story:
    """The story of one source row: `ID`, its first 8 hex digits or more, or `FILE:LINE`.

    A place is looked up in the newest run that has it; from there the row's identity counts, so
    that the same row is found wherever it lay in other runs.

    Raises:
        ConfigError: no row has that name, or several have.
    """
    runs = [(run, table) for run in sealed_runs() if (table := _ledger(run)) is not None]
    for _, table in runs:
        found = table.filter(_matches(table, key))
        identities = found["row_id"].unique().to_pylist()
        if len(identities) > 1:
            raise ConfigError(
                f"trace: {len(identities)} rows match {key!r}. Give more of the row id."
            )
        if identities:
            return _story(found.to_pylist()[0], runs)
    raise ConfigError(
        f"trace: no row {key!r} in {len(runs)} sealed runs. Name it by FILE:LINE as the config "
        "names the file, or by 8 or more digits of its row id."
    )


def trace_subject(pseudonym: str) -> list[Story]:
    """The stories of all rows about one person."""
    runs = [(run, table) for run in sealed_runs() if (table := _ledger(run)) is not None]
    lines: dict[str, dict[str, Any]] = {}
    for _, table in runs:
        for line in table.filter(pc.equal(table["subject"], pseudonym)).to_pylist():
            lines.setdefault(line["row_id"], line)
    return [_story(line, runs) for line in lines.values()]


def dropped_rows(run_id: str | None, reason: str | None, stage: str | None) -> list[Story]:
    """Ledger lines of the rows that a run dropped; the newest run where none is named.

    Raises:
        ConfigError: there is no such run, or it dropped nothing for that reason.
    """
    run = next((r for r in sealed_runs() if run_id in (None, r.run_id)), None)
    table = _ledger(run) if run else None
    if table is None:
        raise ConfigError(f"trace: no sealed run {run_id or ''}".rstrip() + " has a ledger.")
    ledger, table = table, table.filter(pc.equal(table["fate"], "dropped"))
    for column, value in (("reason", reason), ("stage", stage)):
        known = sorted(table[column].unique().to_pylist())
        if value is not None and value not in known:
            raise ConfigError(
                f"trace: nothing was dropped with {column} {value!r}, found {', '.join(known)}."
            )
        if value is not None:
            table = table.filter(pc.equal(table[column], value))
    return [line | _other(line["evidence"], ledger) for line in table.to_pylist()]


def put_erasures(entries: Collection[str]) -> FileRef:
    """Store an erasure list as row ids and pseudonyms, which name nobody."""
    return put_bytes(canonical_json(sorted(entries)), ".json")


def read_erasures(ref: FileRef) -> list[str]:
    """Inverse of `put_erasures`."""
    entries: list[str] = json.loads(_checked(ref).read_bytes())
    return entries


def models_that_saw(entries: Collection[str]) -> list[tuple[str, str, str, int]]:
    """Registered models trained on rows that an erasure list names, by row id or subject.

    A line is model, version, run id and how many of the rows it was trained on.
    """
    wanted = pa.array(sorted(entries), pa.string())
    found = []
    for run in sealed_runs():
        table = _ledger(run)
        if table is None or not (models := _models(run)):
            continue
        named = pc.or_(pc.is_in(table["row_id"], wanted), pc.is_in(table["subject"], wanted))
        count = table.filter(pc.and_(named, pc.equal(table["fate"], "train"))).num_rows
        if count:
            found += [(m["name"], m["version"], run.run_id, count) for m in models]
    return found


def _ledger(run: RunRecord) -> pa.Table | None:
    report = run.report("account")
    return pq.read_table(_checked(report.files["ledger"])) if report else None


def _checked(ref: FileRef) -> Path:
    check(ref)
    return locate(ref)


def _matches(table: pa.Table, key: str) -> Any:
    place = _PLACE.fullmatch(key)
    if place:
        file, line = place["file"], int(place["line"])
        same_file = pc.or_(
            pc.equal(table["source"], file), pc.ends_with(table["source"], f"/{file}")
        )
        return pc.and_(same_file, pc.equal(table["line"], line))
    if len(key) < _MIN_PREFIX:
        raise ConfigError(f"trace: {key!r} is too short, give {_MIN_PREFIX} digits or more.")
    return pc.starts_with(table["row_id"], key.lower())


def _story(line: dict[str, Any], runs: list[tuple[RunRecord, pa.Table]]) -> Story:
    names = ("row_id", "source", "line", "licence", "consent", "subject")
    return {name: line[name] for name in names} | {
        "runs": [
            {
                "run_id": run.run_id,
                "flow": run.flow,
                "outcome": run.outcome,
                "place": f"{found['source']}:{found['line']}",
                "fate": found["fate"],
                "stages": list(_decisions(run, table, found["row"])),
                "models": _models(run) if found["fate"] == "train" else [],
            }
            for run, table in runs
            for found in table.filter(pc.equal(table["row_id"], line["row_id"])).to_pylist()
        ]
    }


def _decisions(run: RunRecord, table: pa.Table, row: int) -> Iterator[Story]:
    """What each stage decided about a row, from where it came in to where it was dropped."""
    num_rows = 0
    for report in run.reports:
        if "source_rows" in report.files:
            num_rows += pq.read_metadata(_checked(report.files["source_rows"])).num_rows
        if row >= num_rows:
            continue
        if "decisions" not in report.files:
            continue
        made = pq.read_table(_checked(report.files["decisions"]), filters=[("row", "=", row)])
        for decision in made.to_pylist() or [{"action": "kept", "reason": "", "evidence": ""}]:
            told = {key: decision[key] for key in ("action", "reason", "evidence")}
            yield {"stage": report.stage} | told | _other(told["evidence"], table)
            if told["action"] == "dropped":
                return


def _other(evidence: str, ledger: pa.Table) -> Story:
    """Where the other row lies that the evidence names, if it names one."""
    row = _OTHER_ROW.search(evidence)
    if not row:
        return {}
    line = ledger.slice(int(row[1]), 1).to_pylist()[0]
    return {"other": f"{line['source']}:{line['line']}"}


def _models(run: RunRecord) -> list[Story]:
    """The versions that a run registered."""
    report = run.report("register")
    rows = report.tables["versions"].rows if report else ()
    return [
        {"name": str(name), "version": str(version), "verdict": str(verdict)}
        for name, version, verdict in rows
    ]
