"""The bill of materials passes the schema of CycloneDX 1.6 and names everything by its digest."""

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from sft_core.documents.data_card import final_splits
from sft_core.exports.ml_bom import ml_bom, render_ml_bom
from sft_core.reports import RunRecord
from tests.sft_core.exports.tuned_record import ADAPTER, BASE, tuned_record
from tests.sft_core.small_record import small_record, with_report


@pytest.fixture
def record(home):
    return tuned_record()


def schema_errors(text):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def digests(component):
    return [each["content"] for each in component.get("hashes", ())]


def values(component):
    return {each["name"]: each["value"] for each in component["properties"]}


def test_the_schema_finds_no_error_in_it_and_would_find_one(record):
    assert schema_errors(render_ml_bom(record)) is None
    wrong = ml_bom(record)
    metrics = wrong["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    metrics["performanceMetrics"][0]["value"] = 1.0  # the schema wants text
    assert schema_errors(json.dumps(wrong)) is not None


def test_model_base_data_and_packages_are_there_by_digest(record):
    bom = ml_bom(record)
    by_ref = {each["bom-ref"]: each for each in bom["components"]}
    assert digests(bom["metadata"]["component"]) == [ADAPTER]
    assert digests(by_ref["base"]) == [BASE]
    (source,) = record.report("ingest").tables["sources"].rows
    assert digests(by_ref["source:1"]) == [source[4]]
    assert by_ref["source:1"]["licenses"] == [{"license": {"name": "CC0-1.0"}}]
    for name, ref in final_splits(record).items():
        assert by_ref[f"data:{name}"]["type"] == "data"
        assert digests(by_ref[f"data:{name}"]) == [ref.sha256]
    torch = by_ref["pkg:pypi/torch@2.13.0%2Bcpu"]
    assert (torch["name"], torch["version"]) == ("torch", "2.13.0+cpu")
    assert values(torch) == {"tunetrail:record_sha256": "0" * 64}
    assert "pkg:pypi/zope-interface@8.0" in by_ref
    assert bom["dependencies"] == [{"ref": "model", "dependsOn": list(by_ref)}]


def test_the_model_card_holds_every_metric_of_the_model_with_its_interval(record):
    card = ml_bom(record)["metadata"]["component"]["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert [m["type"] for m in metrics if "slice" not in m] == [
        "evaluate/num_items",
        "evaluate/base_exact_match",
        "evaluate/tuned_exact_match",
        "evaluate/exact_match_gain",
    ]
    assert metrics[3]["value"] == "0.5"
    assert metrics[3]["confidenceInterval"] == {"lowerBound": "0.4", "upperBound": "0.6"}
    assert metrics[4:] == [
        {
            "type": "evaluate/exact match",
            "slice": f"site: {site}",
            "value": value,
            "confidenceInterval": {"lowerBound": low, "upperBound": high},
        }
        for site, value, low, high in (
            ("north", "0.8", "0.7000", "0.9000"),
            ("south", "0.7", "0.6000", "0.8000"),
        )
    ]
    said = card["considerations"]
    assert (
        "Not measured: fairness: bias_shift: the base is too weak" in said["technicalLimitations"]
    )
    assert said["useCases"] == ["Intended use: not stated."]
    assert said["fairnessAssessments"] == [
        {"groupAtRisk": "site", "harms": "largest difference: 0.1"}
    ]
    assert [each["ref"] for each in card["modelParameters"]["datasets"]] == [
        "data:train",
        "data:validation",
        "data:test",
    ]


def test_gates_and_verdict_ride_along_and_not_measured_is_no_pass(record):
    found = values(ml_bom(record)["metadata"]["component"])
    assert found["tunetrail:gate.fairness.bias_shift"] == "not measured"
    assert found["tunetrail:gate.evaluate.primary_gain"] == "pass"
    assert found["tunetrail:verdict"] == "fail"


def test_the_same_record_gives_the_same_bytes_here_and_after_it_was_stored(record):
    stored = RunRecord.model_validate_json(record.model_dump_json())
    assert render_ml_bom(stored) == render_ml_bom(record)
    other = record.model_copy(update={"run_id": "f" * 16})
    assert ml_bom(other)["serialNumber"] != ml_bom(record)["serialNumber"]


def test_a_run_that_ended_before_training_claims_no_model(home):
    early = small_record()
    assert schema_errors(render_ml_bom(early)) is None
    model = ml_bom(early)["metadata"]["component"]
    assert digests(model) == []
    assert "no tuned model" in model["description"]
    assert model["modelCard"]["quantitativeAnalysis"] == {"performanceMetrics": []}
    assert schema_errors(render_ml_bom(early.model_copy(update={"reports": ()}))) is None


def test_a_hub_data_set_has_no_digest_of_a_file(record):
    ingest = record.reports[0]
    (row,) = ingest.tables["sources"].rows
    table = ingest.tables["sources"].model_copy(update={"rows": ((*row[:4], "hub data set"),)})
    hub = with_report(record, ingest.model_copy(update={"tables": {"sources": table}}))
    assert schema_errors(render_ml_bom(hub)) is None
    (source,) = [each for each in ml_bom(hub)["components"] if each["bom-ref"] == "source:1"]
    assert digests(source) == []
