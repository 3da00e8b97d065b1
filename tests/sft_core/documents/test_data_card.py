"""The data card is valid Croissant, loads the rows that it describes, and states nothing more."""

import json
import re
import socket

import mlcroissant
import pytest

from sft_core.documents.card import readable
from sft_core.documents.data_card import (
    croissant,
    final_splits,
    render_croissant,
    render_data_sheet,
)
from sft_core.reports import StageReport, Table
from sft_core.store import locate, read_records
from tests.conftest import change
from tests.sft_core.small_record import small_record, with_report

RAI_TERMS = {
    "dataCollection", "dataCollectionType", "dataCollectionMissingData", "dataCollectionRawData",
    "dataCollectionTimeframe", "dataImputationProtocol", "dataManipulationProtocol",
    "dataPreprocessingProtocol", "dataAnnotationProtocol", "dataAnnotationPlatform",
    "dataAnnotationAnalysis", "dataReleaseMaintenancePlan", "personalSensitiveInformation",
    "dataSocialImpact", "dataBiases", "dataLimitations", "dataUseCases", "annotationsPerItem",
    "annotatorDemographics", "machineAnnotationTools",
}  # fmt: skip
"""The vocabulary as the specification of RAI 1.0 spells it; the library has two of them wrong."""


@pytest.fixture
def record(home):
    return small_record()


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def load(record, home):
    """The data set as the library reads it from where the run publishes it."""
    folder = home / "runs" / record.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "croissant.json").write_text(render_croissant(record))
    return mlcroissant.Dataset(folder / "croissant.json")


def rai(metadata):
    return {key.removeprefix("rai:"): v for key, v in metadata.items() if key.startswith("rai:")}


def test_the_library_finds_no_error_and_loads_every_row_of_every_split(record, home, offline):
    dataset = load(record, home)
    assert not dataset.metadata.ctx.issues.errors
    assert {w for w in dataset.metadata.ctx.issues.warnings if "record" in w.lower()} == set()
    splits = final_splits(record)
    assert {name: ref.num_rows for name, ref in splits.items()} == {
        "train": 5,
        "validation": 1,
        "test": 1,
    }
    for name, ref in splits.items():
        loaded = list(dataset.records(name))
        stored = list(read_records(ref))
        assert [row[f"{name}/row"] for row in loaded] == [r.row for r in stored]
        assert [row[f"{name}/row_id"].decode() for row in loaded] == [r.row_id for r in stored]
        turns = [
            [
                {key.split("/")[-1]: text.decode() for key, text in turn.items()}
                for turn in row[f"{name}/messages"]
            ]
            for row in loaded
        ]
        assert turns == [r.messages for r in stored]


def test_rows_that_differ_from_their_digest_are_not_loaded(record, home, offline):
    path = locate(final_splits(record)["train"])
    path.write_bytes(path.read_bytes().replace(b"plus one", b"plus two"))
    with pytest.raises(mlcroissant.GenerationError) as failure:
        next(iter(load(record, home).records("train")))
    assert "is not identical" in str(failure.value.__cause__ or failure.value)


def test_the_terms_are_those_of_the_vocabulary_and_hold_what_was_measured(record):
    metadata = croissant(record)
    terms = rai(metadata)
    assert set(terms) <= RAI_TERMS
    assert metadata["conformsTo"] == [
        "http://mlcommons.org/croissant/1.1",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]
    assert metadata["license"] == ["CC0-1.0"]
    assert terms["dataCollectionMissingData"].startswith("1 rows had a missing value")
    assert "identifiers: kind email, found 4" in terms["personalSensitiveInformation"]
    assert "representation: group older, rows 3" in terms["dataBiases"]
    assert any("not measured: no group has 20 rows" in line for line in terms["dataBiases"])
    assert any("near_duplicate 1" in line for line in terms["dataPreprocessingProtocol"])
    assert terms["dataReleaseMaintenancePlan"] == "not stated"


def numbers(text):
    return set(re.findall(r"\d[\d,]*(?:\.\d+)?", text))


def leaves(value):
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_no_number_is_there_that_the_record_does_not_hold(record):
    known = set()
    for value in leaves(record.model_dump(mode="json")):
        known |= numbers(readable(value))
    text = " ".join(map(str, leaves(rai(croissant(record)))))
    assert numbers(text) - known - {"256"} == set()  # SHA-256
    assert numbers(text) & {"10", "9", "4", "3"} == {"10", "9", "4", "3"}


def test_a_run_that_ended_early_says_what_it_did_not_measure(record, home, offline):
    early = record.model_copy(update={"reports": record.reports[:1], "outcome": "failed"})
    dataset = load(early, home)
    assert not dataset.metadata.ctx.issues.errors
    metadata = croissant(early)
    terms = rai(metadata)
    assert "recordSet" not in metadata
    assert terms["dataBiases"] == ["not measured"]
    assert terms["personalSensitiveInformation"] == ["not measured"]
    assert terms["dataPreprocessingProtocol"] == ["not measured"]
    assert terms["dataCollectionMissingData"] == "not measured"
    sheet = render_data_sheet(early)
    assert "Not measured: the run ended before the split." in sheet
    nothing = record.model_copy(update={"reports": (), "outcome": "interrupted"})
    assert "SHA-256 not measured" in rai(croissant(nothing))["dataCollectionRawData"]
    assert render_data_sheet(nothing)


def test_a_folder_or_a_hub_data_set_is_named_but_has_no_digest_of_a_file(home, offline):
    config = small_record().config
    sources = [config["ingest"]["sources"][0] | {"path": "team/sums", "format": "datasets"}]
    record = small_record(ingest=config["ingest"] | {"sources": sources})
    metadata = croissant(record)
    assert [f["@id"] for f in metadata["distribution"]] == [
        "train.jsonl",
        "validation.jsonl",
        "test.jsonl",
    ]
    assert [origin["name"] for origin in metadata["isBasedOn"]] == ["team/sums"]
    assert not load(record, home).metadata.ctx.issues.errors


def test_terms_by_row_are_not_passed_off_as_terms_of_the_source(home):
    config = small_record().config
    source = config["ingest"]["sources"][0]
    by_row = source | {"columns": source["columns"] | {"licence": "terms"}}
    record = small_record(ingest=config["ingest"] | {"sources": [by_row]})
    assert croissant(record)["license"] == ["by row, column terms"]


def test_what_people_state_is_in_both_documents(record):
    stated = {
        "data_purpose": "To test addition.",
        "data_collection": "A script counted.",
        "data_annotation": "The same script added one.",
        "data_limits": "Small numbers alone.",
        "data_impact": "None is known.",
        "data_maintenance": "The owner renews it each spring.",
        "data_url": "https://example.org/sums",
        "data_published": "2025-01-31",
        "owner": "Sums team",
    }
    told = small_record(card=record.config["card"] | stated)
    sheet, text = render_data_sheet(told), render_croissant(told)
    for key, value in stated.items():
        assert value.split("://")[-1] in sheet, key
        assert value in text, key
    assert json.loads(text)["creator"] == {"@type": "sc:Organization", "name": "Sums team"}


def test_the_sheet_has_the_seven_sections_and_says_what_is_missing(record):
    sheet = render_data_sheet(record)
    assert re.findall(r"^## (.*)$", sheet, re.MULTILINE) == [
        "Motivation",
        "Composition",
        "Collection",
        "Preprocessing, cleaning, labelling",
        "Uses",
        "Distribution",
        "Maintenance",
    ]
    assert sheet.count("not stated") > 8
    assert "| train | 5 |" in sheet
    assert "| email | 4 |" in sheet
    assert "Whether the terms allow the use was not measured." in sheet


def test_hostile_names_stay_plain_text(record, home, offline):
    hostile = '"}]</script><img src=x onerror=y> | `x` [a](http://evil.example)'
    found = StageReport(
        stage="audit_bias", tables={hostile: Table(columns=(hostile, "n"), rows=((hostile, 1),))}
    )
    sources = record.config["ingest"]["sources"][0] | {"licence": hostile, "subgroups": [hostile]}
    config = record.config["ingest"] | {"sources": [sources]}
    bad = with_report(small_record(ingest=config), found)
    assert not load(bad, home).metadata.ctx.issues.errors
    assert croissant(bad)["license"] == [hostile]
    sheet = render_data_sheet(bad)
    assert "<img" not in sheet
    assert not re.search(r"(?<!\\)\]\(", sheet)
    assert "://evil" not in sheet
    assert " | `x`" not in sheet


def test_the_pattern_of_a_day_and_of_an_address_is_checked():
    from pydantic import ValidationError

    from sft_core.config import PipelineConfig

    for field, value in (("data_published", "last spring"), ("data_url", "javascript:x")):
        with pytest.raises(ValidationError, match=field):
            change(PipelineConfig(), card={field: value})
