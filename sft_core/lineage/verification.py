"""Recomputes a run's record from the stored evidence and names the first thing that differs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from sft_core.base_model import check_base
from sft_core.documents.card import render_card
from sft_core.documents.data_card import render_croissant, render_data_sheet
from sft_core.documents.page import render_page
from sft_core.errors import IntegrityError
from sft_core.evaluation.summaries import SUMMARIES
from sft_core.exports.annex_iv import render_annex_iv
from sft_core.exports.hub_results import render_hub_results
from sft_core.exports.lineage_events import render_lineage_events
from sft_core.exports.ml_bom import render_ml_bom
from sft_core.lineage.chain import STATEMENT_PAYLOAD, Entry, read_chain
from sft_core.lineage.ledger import build_ledger, check_conservation
from sft_core.lineage.membership import training_set
from sft_core.lineage.provenance import code_provenance
from sft_core.lineage.signing import opened, public_key
from sft_core.lineage.statements import BUNDLE, stage_statements
from sft_core.lineage.tracing import RUN
from sft_core.records import sha256_json
from sft_core.reports import FileRef, ModelRef, RunRecord
from sft_core.store import check, count_rows, home, locate

_DOCUMENTS: tuple[tuple[str, str, Callable[[RunRecord], str]], ...] = (
    ("data_card", "croissant.json", render_croissant),
    ("data_card", "data_sheet.md", render_data_sheet),
    ("page", "report.html", render_page),
    ("model_card", "README.md", render_card),
    ("exports", "ml_bom.cdx.json", render_ml_bom),
    ("exports", "openlineage.jsonl", render_lineage_events),
    ("exports", "annex_iv.md", render_annex_iv),
    ("exports", "eval_results.yaml", render_hub_results),
)
"""Stage, published file, and the function of the record that writes it."""


def verify(run_id: str | None = None, key: Path | None = None) -> Iterator[str]:
    """Check the whole chain, then one run or all runs; yields a line for each check that held.

    Raises:
        IntegrityError: the first difference: place, expected, found.
    """
    chain = read_chain(public_key(key))
    yield f"chain: {len(chain)} statements signed and in order"
    runs = [e for e in chain if e.statement["predicateType"] == RUN]
    if run_id is not None:
        runs = [e for e in runs if e.predicate["run_id"] == run_id]
    if not runs:
        raise IntegrityError(f"chain: no sealed run {run_id or ''}".rstrip() + " is in it.")
    last = {entry.predicate["run_id"]: entry for entry in runs}
    for entry in runs:
        if last[entry.predicate["run_id"]] is entry:
            yield from _verify_run(entry, chain)
        else:
            yield from _verify_replaced(entry, last[entry.predicate["run_id"]])


def _verify_replaced(entry: Entry, by: Entry) -> Iterator[str]:
    """A run that was killed after it had been sealed, and ended later, is sealed again.

    The copies for people are those of the last statement; the rest of the evidence is all there.
    """
    copies = f"runs/{entry.predicate['run_id']}/"
    for item in entry.predicate["evidence"]:
        if not item["path"].startswith(copies):
            check(FileRef.model_validate(item))
    yield (
        f"run {entry.predicate['run_id']}: {entry.path.name} was replaced by {by.path.name} when "
        "the interrupted run went on; its evidence has its digests"
    )


def _verify_run(entry: Entry, chain: list[Entry]) -> Iterator[str]:
    predicate = entry.predicate
    name = f"run {predicate['run_id']}"
    for item in predicate["evidence"]:
        check(FileRef.model_validate(item))
    yield f"{name}: {len(predicate['evidence'])} pieces of evidence have their digests"
    record = _record(predicate)
    _expect(name, "config digest", predicate["config_sha256"], sha256_json(record.config))
    _expect(name, "policy digest", predicate["policy_sha256"], sha256_json(record.config["policy"]))
    _expect(name, "verdict", predicate["verdict"], record.verdict)
    _expect(name, "outcome", predicate["outcome"], record.outcome)
    gates = [
        {"stage": s, "verdict": g.verdict} | g.model_dump(mode="json") for s, g in record.gates
    ]
    _expect(name, "gates", predicate["gates"], gates)
    yield f"{name}: {len(gates)} gates judged again, verdict {record.verdict}"
    yield from _check_plan(name, record, chain)
    yield from _check_ledger(name, record, predicate["training_set"])
    if predicate["code"] == code_provenance():
        yield from _check_evaluation(name, record)
        yield from _check_documents(name, record)
        yield from _check_statements(name, record, entry)
    else:
        commit = predicate["code"]["commit"]
        other = f"{name}: made by other code (commit {commit})"
        yield f"{other}: cards, metrics and statements NOT RECOMPUTED"
    yield from _check_base(name, predicate["base"])


def _record(predicate: dict[str, Any]) -> RunRecord:
    path = home() / "store" / f"{predicate['record']}.json"
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise IntegrityError(f"store/{path.name}: not a readable run record.") from error


def _expect(name: str, what: str, expected: Any, found: Any) -> None:
    if expected != found:
        raise IntegrityError(f"{name}: {what} is {found!r}, expected {expected!r}.")


def _check_statements(name: str, record: RunRecord, entry: Entry) -> Iterator[str]:
    """The stages' own statements are signed by the run's key and say what the record says."""
    place = f"runs/{record.run_id}/{BUNDLE}"
    lines = (home() / place).read_bytes().splitlines()
    again = list(stage_statements(record, entry.predicate["code"]))
    _expect(name, f"number of statements in {BUNDLE}", len(again), len(lines))
    for number, ((what, expected), line) in enumerate(zip(again, lines, strict=True), start=1):
        found = opened(line, f"{place} line {number}", entry.key, STATEMENT_PAYLOAD)
        _expect(name, f"statement {what}", expected, found)
    yield f"{name}: {len(lines)} statements of its stages are signed and say what the reports say"


def _check_plan(name: str, record: RunRecord, chain: list[Entry]) -> Iterator[str]:
    """The limits of the run are those that were signed before training."""
    if record.report("plan") is None:
        return
    kind = "urn:tunetrail:plan:v1"
    plans = [
        entry.predicate
        for entry in chain
        if entry.statement["predicateType"] == kind and entry.predicate["run_id"] == record.run_id
    ]
    if not plans:
        raise IntegrityError(f"{name}: no plan of it was signed before training.")
    _expect(name, "policy sealed before training", plans[0]["policy"], record.config["policy"])
    yield f"{name}: judged by the limits that were sealed before training"


def _check_ledger(name: str, record: RunRecord, training: dict[str, Any] | None) -> Iterator[str]:
    report = record.report("account")
    if report is None:
        return
    before = [r for r in record.reports if r.stage != "account"]
    sealed, joined = pq.read_table(locate(report.files["ledger"])), build_ledger(before)
    if training is not None:
        _expect(name, "training set", training, training_set(sealed))
    if not sealed.equals(joined):
        for expected, found in zip(sealed.to_pylist(), joined.to_pylist(), strict=False):
            _expect(name, f"ledger line of row {expected['row']}", expected, found)
        _expect(name, "number of ledger lines", sealed.num_rows, joined.num_rows)
    for stage in before:
        for key, data in stage.datasets.items():
            _expect(name, f"rows of {stage.stage}: {key}", data.num_rows, count_rows(data))
    check_conservation(joined, before)
    yield f"{name}: {sealed.num_rows:,} ledger lines follow from the stages' decisions"


def _check_evaluation(name: str, record: RunRecord) -> Iterator[str]:
    """Every metric of the evaluation follows from the scores kept per item."""
    resamples, seed = record.config["evaluation"]["num_resamples"], record.config["seed"]
    for stage, summarize in SUMMARIES.items():
        report = record.report(stage)
        if report is None:
            continue
        evidence = {key: pq.read_table(locate(ref)) for key, ref in report.files.items()}
        found = summarize(evidence, num_resamples=resamples, seed=seed).metrics
        _expect(name, f"{stage}: names of the metrics", sorted(report.metrics), sorted(found))
        for metric, value in report.metrics.items():
            if not math.isclose(value, found[metric], rel_tol=1e-9, abs_tol=1e-12):
                _expect(name, f"{stage}: {metric}", value, found[metric])
        yield f"{name}: {len(found)} metrics of {stage} follow from the scores per item"


def _check_documents(name: str, record: RunRecord) -> Iterator[str]:
    """What people read follows from the reports that were there when it was written."""
    for stage, file, render in _DOCUMENTS:
        report = record.report(stage)
        if report is None:
            continue
        again = render(record.before(stage)).splitlines()
        path = home() / "runs" / record.run_id / file
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, (expected, found) in enumerate(zip(again, lines, strict=False), start=1):
            _expect(name, f"{file} line {number}", expected, found)
        _expect(name, f"number of lines of {file}", len(again), len(lines))
        yield f"{name}: every number in {file} follows from the sealed reports"


def _check_base(name: str, base: dict[str, Any] | None) -> Iterator[str]:
    """The base lies outside the home; where it is at hand it is checked, else that is said."""
    if base is None:
        return
    ref = ModelRef.model_validate(base)
    if not Path(ref.path).is_dir():
        yield f"{name}: base model {ref.path} is not here, NOT CHECKED"
        return
    check_base(ref)
    yield f"{name}: base model has its digest"
