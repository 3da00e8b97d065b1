"""The examples in the documentation, which a demo run wrote, pass what the exports pass."""

import json

import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import parse_eval_result_entries

from tests.conftest import ROOT
from tests.sft_core.exports.test_lineage_events import check

EXAMPLES = ROOT / "docs/examples"


def test_the_bill_of_materials_passes_its_schema():
    text = (EXAMPLES / "ml_bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_events_are_openlineages():
    lines = (EXAMPLES / "openlineage.jsonl").read_text().splitlines()
    runs = {}
    for event in map(check, map(json.loads, lines)):
        runs.setdefault(event.run.runId, []).append(event.eventType)
    assert len(runs) == 22
    assert set(map(tuple, runs.values())) == {("START", "COMPLETE")}


def test_the_hub_reads_the_results():
    entries = parse_eval_result_entries(
        yaml.safe_load((EXAMPLES / "eval_results.yaml").read_text())
    )
    assert {entry.task_id for entry in entries} >= {"exact_match", "loss"}
