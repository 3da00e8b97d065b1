"""The run as a bill of materials: tuned model, base, data sets and packages, by digest.

A function of the run's record alone. What no stage measured is listed as not measured.

Source: CycloneDX 1.6 (ECMA-424), component types `machine-learning-model` and `data`, `modelCard`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from itertools import takewhile
from typing import Any
from urllib.parse import quote

from sft_core.documents.card import changes, not_measured, readable
from sft_core.documents.data_card import final_splits
from sft_core.reports import Cell, ModelRef, RunRecord, StageReport, Table

_MODEL = "model"
_BASE = "base"
_SHA256 = re.compile(r"\A[0-9a-f]{64}\Z")
"""A data set of the hub has none."""
_TREE = "SHA-256 over the sorted names and digests of the folder's files"


def render_ml_bom(record: RunRecord) -> str:
    """`ml_bom.cdx.json`: `ml_bom` as text."""
    return json.dumps(ml_bom(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def ml_bom(record: RunRecord) -> dict[str, Any]:
    """The bill of materials. Its subject is the tuned model, without a digest where none was made.

    The serial number follows from the run's id, so that the same record gives the same bytes.
    """
    components = [*_base(record), *_sources(record), *_splits(record), *_packages(record)]
    metadata: dict[str, Any] = {"tools": {"components": [_tool(record)]}}
    if record.times:
        metadata["timestamp"] = max(end for _, end in record.times.values()).isoformat()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'tunetrail:{record.run_id}')}",
        "version": 1,
        "metadata": metadata | {"component": _model(record)},
        "components": components,
        "dependencies": [{"ref": _MODEL, "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _tool(record: RunRecord) -> dict[str, Any]:
    code = record.provenance.get("code", {})
    named = {f"git_{key}": value for key, value in code.items() if value}
    return {"type": "application", "name": "tunetrail", **_properties(named)}


def _model(record: RunRecord) -> dict[str, Any]:
    """The tuned model and its card."""
    card, trained = record.config["card"], record.report("train")
    facts = {
        "run_id": record.run_id,
        "outcome": record.outcome,
        "verdict": record.verdict,
        **{f"gate.{stage}.{gate.metric}": gate.verdict for stage, gate in record.gates},
    }
    model: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": record.config["name"],
        "licenses": [{"license": {"name": card["licence"]}}],
    }
    if card["owner"]:
        model["manufacturer"] = {"name": card["owner"]}
    if trained:
        model |= _digest(trained.models["adapter"])
        facts["digest"] = _TREE
    else:
        model["description"] = "The run ended before training: there is no tuned model."
    return model | {"modelCard": _model_card(record)} | _properties(facts)


def _model_card(record: RunRecord) -> dict[str, Any]:
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "datasets": [{"ref": f"data:{name}"} for name in final_splits(record)],
            "inputs": [{"format": "string"}],
            "outputs": [{"format": "string"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(record))},
        "considerations": _considerations(record),
        **_properties(
            {"seed": record.config["seed"]}
            | {f"training.{key}": value for key, value in record.config["training"].items()}
        ),
    }


def evaluating_reports(record: RunRecord) -> list[StageReport]:
    """What was measured on the tuned model: all reports between training and the ledger."""
    stages = [report.stage for report in record.reports]
    if "train" not in stages:
        return []
    after = record.reports[stages.index("train") + 1 :]
    return list(takewhile(lambda report: report.stage != "account", after))


def _metrics(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Every metric of the model with its 95 % interval, where it has one, and those by subgroup."""
    for report in evaluating_reports(record):
        for name, value in report.metrics.items():
            end = next((end for end in ("_low", "_high") if name.endswith(end)), None)
            if end and name.removesuffix(end) in report.metrics:
                continue
            metric: dict[str, Any] = {"type": f"{report.stage}/{name}", "value": repr(value)}
            low, high = (report.metrics.get(name + end) for end in ("_low", "_high"))
            if low is not None and high is not None:
                metric["confidenceInterval"] = _interval(repr(low), repr(high))
            yield metric
        yield from _by_subgroup(report)


def _by_subgroup(report: StageReport) -> Iterator[dict[str, Any]]:
    for cells in _lines(report.tables.get("subgroups")):
        for column, value in cells.items():
            name, _, model = column.partition(", ")
            if model != "tuned" or value is None or name.startswith("95 %"):
                continue
            metric: dict[str, Any] = {
                "type": f"{report.stage}/{name}",
                "value": str(value),
                "slice": f"{cells['dimension']}: {cells['group']}",
            }
            low, to, high = str(cells.get("95 % interval, tuned", "")).partition(" to ")
            if to and name != "loss":  # the interval is that of the primary metric
                metric["confidenceInterval"] = _interval(low, high)
            yield metric


def _interval(low: str, high: str) -> dict[str, str]:
    return {"lowerBound": low, "upperBound": high}


def _considerations(record: RunRecord) -> dict[str, Any]:
    card = record.config["card"]
    worse = changes(record).get("What got worse")
    unmeasured = [f"{stage}: {metric}: {why}" for stage, metric, why in not_measured(record)]
    lines = {
        "useCases": [card["intended_use"] or "Intended use: not stated."],
        "technicalLimitations": [
            f"Out of scope: {card['out_of_scope'] or 'not stated.'}",
            *(f"Not measured: {line}" for line in unmeasured),
        ],
        "performanceTradeoffs": [f"Got worse: {_sentence(cells)}" for cells in _lines(worse)],
        "ethicalConsiderations": [{"name": card["data_impact"]}] if card["data_impact"] else [],
        "fairnessAssessments": list(_fairness(record)),
    }
    return {key: found for key, found in lines.items() if found}


def _fairness(record: RunRecord) -> Iterator[dict[str, str]]:
    """A line for each dimension whose groups were compared."""
    for report in evaluating_reports(record):
        for cells in _lines(report.tables.get("subgroup_gaps")):
            yield {"groupAtRisk": str(cells.pop("dimension")), "harms": _sentence(cells)}


def _lines(table: Table | None) -> Iterator[dict[str, Cell]]:
    """The rows of a table by column; none where there is no table."""
    if table:
        yield from (dict(zip(table.columns, row, strict=True)) for row in table.rows)


def _sentence(cells: dict[str, Cell]) -> str:
    return ", ".join(f"{column}: {readable(cell)}" for column, cell in cells.items())


def _base(record: RunRecord) -> Iterator[dict[str, Any]]:
    for report in record.reports:
        if ref := report.models.get("base"):
            yield {
                "type": "machine-learning-model",
                "bom-ref": _BASE,
                "name": record.config["model"]["model_name_or_path"],
                "version": record.config["model"]["revision"],
                **_digest(ref),
                **_properties({"digest": _TREE}),
            }
            return


def _sources(record: RunRecord) -> Iterator[dict[str, Any]]:
    """The source files as they were read, with licence and consent."""
    ingest = record.report("ingest")
    read = _lines(ingest.tables["sources"]) if ingest else ()
    for place, cells in enumerate(read, start=1):
        facts = {key: cells[key] for key in ("consent", "rows")}
        yield {
            "type": "data",
            "bom-ref": f"source:{place}",
            "name": str(cells["source"]),
            "hashes": [
                {"alg": "SHA-256", "content": d} for d in _SHA256.findall(str(cells["sha256"]))
            ],
            "licenses": [{"license": {"name": str(cells["licence"])}}],
            "data": [{"type": "dataset", "name": str(cells["source"])}],
            **_properties(facts),
        }


def _splits(record: RunRecord) -> Iterator[dict[str, Any]]:
    """The rows that the model was trained on, chosen by and judged on."""
    owner = record.config["card"]["owner"]
    for name, ref in final_splits(record).items():
        data: dict[str, Any] = {"type": "dataset", "name": name}
        if owner:
            data["governance"] = {"owners": [{"organization": {"name": owner}}]}
        yield {
            "type": "data",
            "bom-ref": f"data:{name}",
            "name": f"{record.config['name']}: {name}",
            "mime-type": "application/jsonlines",
            "hashes": [{"alg": "SHA-256", "content": ref.sha256}],
            "data": [data],
            **_properties({"rows": ref.num_rows, "path": ref.path}),
        }


def _packages(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Every installed package; the digest is that of its RECORD, not of the file it came in."""
    packages = record.provenance.get("environment", {}).get("packages", {})
    for name, found in packages.items():
        place = f"pkg:pypi/{re.sub('[-_.]+', '-', name)}@{quote(found['version'])}"
        package = {
            "type": "library",
            "bom-ref": place,
            "name": name,
            "version": found["version"],
            "purl": place,
        }
        yield package | _properties({"record_sha256": found["record_sha256"]})


def _digest(ref: ModelRef) -> dict[str, Any]:
    return {"hashes": [{"alg": "SHA-256", "content": ref.sha256}]}


def _properties(values: dict[str, Any]) -> dict[str, Any]:
    """Names and values in a namespace of ours; what has no value is left out."""
    return {
        "properties": [
            {"name": f"tunetrail:{name}", "value": v if isinstance(v, str) else json.dumps(v)}
            for name, v in values.items()
            if v is not None
        ]
    }
