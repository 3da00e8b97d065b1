"""Events are what OpenLineage's own types accept, tell what happened, and reach a server."""

import importlib
import json
import logging
import pkgutil
import threading
import uuid
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import attr
import pytest
from openlineage.client import generated
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent

from sft_core.exports.lineage_events import render_lineage_events, send_lineage_events
from sft_core.reports import RunRecord, StageReport, Waiver
from tests.sft_core.exports.tuned_record import ADAPTER, BASE, START, tuned_record
from tests.sft_core.small_record import with_report

FACETS = {
    kind._get_schema(): kind
    for module in pkgutil.iter_modules(generated.__path__)
    for kind in vars(
        importlib.import_module(f"openlineage.client.generated.{module.name}")
    ).values()
    if attr.has(kind) and hasattr(kind, "_get_schema")
}
"""The library's class for each schema of the specification."""
PARTS = {
    "tests": "TestExecution",
    "tags": "TagsRunFacetFields",
}


@pytest.fixture
def record(home):
    return tuned_record()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch, tmp_path):
    """The library copies OPENLINEAGE_URL into other variables: none outlives a test."""
    import os

    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def events(record):
    return [json.loads(line) for line in render_lineage_events(record).splitlines()]


def build(kind, values, **parts):
    """An instance of a class of the library, which refuses unknown and missing fields."""
    values = dict(values)
    schema = values.pop("schemaURL", None) or values.pop("_schemaURL", None)
    if "_producer" in values:
        values["producer"] = values.pop("_producer")
    made = kind(**values | parts)
    assert schema in (None, made._get_schema())
    return made


def build_facets(values):
    return {name: build_facet(facet) for name, facet in values.items()}


def build_facet(facet):
    kind = FACETS[facet["_schemaURL"]]
    module = importlib.import_module(kind.__module__)
    lists = {
        name: [getattr(module, PARTS[name])(**each) for each in facet[name]]
        for name in PARTS
        if name in facet
    }
    parts = {
        name: getattr(module, name.capitalize())(**facet[name])
        for name in ("run", "job")
        if name in facet
    }
    return build(kind, facet, **lists, **parts)


def build_dataset(kind, values, role):
    facets = {"facets": build_facets(values["facets"])}
    return build(kind, values, **facets, **{role: build_facets(values[role])})


def check(event):
    """The event as the library's typed classes; they check ids, times and names of fields."""
    run, job = event["run"], event["job"]
    return build(
        RunEvent,
        event,
        run=build(Run, run, facets=build_facets(run["facets"])),
        job=build(Job, job, facets=build_facets(job["facets"])),
        inputs=[build_dataset(InputDataset, each, "inputFacets") for each in event["inputs"]],
        outputs=[build_dataset(OutputDataset, each, "outputFacets") for each in event["outputs"]],
    )


def of(record, stage):
    """Start and end of a stage."""
    return [e for e in events(record) if e["job"]["name"].split(".")[2:] == [stage]]


def test_every_event_is_one_of_the_librarys_types_and_a_wrong_one_would_not_be(record):
    found = events(record)
    assert len(found) == 2 + 2 * len(record.reports)
    assert [check(event).eventType for event in found]
    wrong = events(record)[1]
    wrong["run"]["facets"]["parent"]["run"]["runId"] = "no uuid"
    with pytest.raises(ValueError, match="badly formed"):
        check(wrong)
    wrong = events(record)[1] | {"colour": "red"}
    with pytest.raises(TypeError, match="colour"):
        check(wrong)


def test_each_stage_starts_and_ends_at_its_times_under_the_run(record):
    first, *_, last = events(record)
    assert (first["eventType"], last["eventType"]) == ("START", "COMPLETE")
    assert first["run"]["runId"] == last["run"]["runId"]
    assert first["eventTime"] == START.isoformat()
    for stage, (begin, end) in record.times.items():
        started, ended = of(record, stage)
        assert started["eventType"] == "START"
        assert datetime.fromisoformat(started["eventTime"]) == begin
        assert datetime.fromisoformat(ended["eventTime"]) == end
        assert started["run"]["runId"] == ended["run"]["runId"]
        parent = ended["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == first["run"]["runId"]
        assert parent["job"]["name"] == first["job"]["name"] == "sft.triage"
    assert len({e["run"]["runId"] for e in events(record)}) == 1 + len(record.times)


def test_what_one_stage_made_is_what_a_later_one_read(record):
    (made,) = of(record, "decontaminate")[1]["outputs"]
    read = {each["name"]: each for each in of(record, "train")[0]["inputs"]}
    data = record.report("decontaminate").data
    assert made["name"] == data.path
    assert made["facets"]["version"]["datasetVersion"] == f"sha256:{data.sha256}"
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == 5
    assert read[data.path]["namespace"] == made["namespace"] == "tunetrail"
    assert read[data.path]["facets"]["version"] == made["facets"]["version"]
    assert read["models/base"]["namespace"] == "file"
    assert read["models/base"]["facets"]["version"]["datasetVersion"] == f"sha256:{BASE}"
    (adapter,) = of(record, "train")[1]["outputs"]
    assert adapter["facets"]["version"]["datasetVersion"] == f"sha256:{ADAPTER}"
    (source,) = of(record, "ingest")[0]["inputs"]
    assert source["name"] == "data/sums.jsonl"


def gate_tests(record, stage):
    return {t["name"]: t for t in of(record, stage)[1]["run"]["facets"]["test"]["tests"]}


def test_gates_are_tests_and_one_that_was_not_measured_has_not_passed(record):
    gain = gate_tests(record, "evaluate")["primary_gain"]
    assert (gain["status"], gain["severity"]) == ("pass", "error")
    assert gain["expected"] == "at least 0.1"
    assert gain["actual"] == "0.5 (95 % interval 0.4 to 0.6)"
    advisory = gate_tests(record, "fairness")["bias_shift"]
    assert (advisory["status"], advisory["severity"]) == ("skip", "warn")
    assert advisory["actual"] == "not measured"
    required = gate_tests(record, "audit_bias")["label_disparity"]
    assert (required["status"], required["severity"]) == ("fail", "error")
    ends = {s: of(record, s)[1]["eventType"] for s in ("audit_bias", "evaluate", "fairness")}
    assert ends == {"audit_bias": "FAIL", "evaluate": "COMPLETE", "fairness": "COMPLETE"}


def test_a_waived_gate_failed_but_stops_nothing(record):
    report = record.report("validate")
    waiver = Waiver(
        limit="max_rejected_rate",
        reason="agreed in the meeting of May",
        person="Clinical lead",
        expires="2030-06-01",
    )
    gates = tuple(gate.model_copy(update={"waiver": waiver}) for gate in report.gates)
    waived = with_report(record, report.model_copy(update={"gates": gates}))
    assert of(record, "validate")[1]["eventType"] == "FAIL"
    assert of(waived, "validate")[1]["eventType"] == "COMPLETE"
    found = gate_tests(waived, "validate")["dropped_rate"]
    assert (found["status"], found["severity"]) == ("fail", "warn")
    assert found["params"]["waived_by"] == "Clinical lead"


@pytest.mark.parametrize(("outcome", "end"), [("failed", "FAIL"), ("interrupted", "ABORT")])
def test_a_stage_that_left_no_report_did_not_complete(record, outcome, end):
    kept = tuple(r for r in record.reports if r.stage != "train")
    changes = {"reports": kept, "outcome": outcome, "problem": "train: loss is no number."}
    broken = record.model_copy(update=changes)
    ended = of(broken, "train")[1]
    assert ended["eventType"] == events(broken)[-1]["eventType"] == end
    assert ended["run"]["facets"]["errorMessage"]["message"] == "train: loss is no number."
    assert [check(event) for event in events(broken)]


def test_the_same_record_gives_the_same_bytes_here_and_after_it_was_stored(record):
    stored = RunRecord.model_validate_json(record.model_dump_json())
    assert render_lineage_events(stored) == render_lineage_events(record)
    ids = {event["run"]["runId"] for event in events(record)}
    other = record.model_copy(update={"run_id": "f" * 16})
    assert ids.isdisjoint(event["run"]["runId"] for event in events(other))
    assert all(uuid.UUID(each).version == 5 for each in ids)


def test_a_stored_record_gives_back_what_a_closing_stage_saw(record):
    """`verify` writes the file again from the record of the whole run."""
    written = StageReport(stage="exports")
    later = START + timedelta(hours=1), START + timedelta(hours=2)
    whole = with_report(record, written).model_copy(
        update={
            "times": record.times | {"exports": later, "register": later},
            "inputs": record.inputs | {"register": ()},
            "cached": ("register",),
        }
    )
    stored = RunRecord.model_validate_json(whole.model_dump_json())
    assert stored.before("exports") == record
    assert render_lineage_events(stored.before("exports")) == render_lineage_events(record)
    assert render_lineage_events(stored) != render_lineage_events(record)


def test_a_record_without_times_has_no_events(record):
    assert render_lineage_events(record.model_copy(update={"times": {}})) == ""


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, json.loads(body)))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server on the loopback address that keeps what it is sent."""
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.received, server.answer = [], 201
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_server_gets_every_event_by_the_librarys_own_setting(record, server, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
    assert send_lineage_events(record) == len(server.received) == len(events(record))
    assert {path for path, _ in server.received} == {"/api/v1/lineage"}
    for expected, (_, found) in zip(events(record), server.received, strict=True):
        for key in ("eventTime", "eventType", "inputs", "outputs"):
            assert found[key] == expected[key]
        assert found["run"]["runId"] == expected["run"]["runId"]
        check(found)


def test_a_settings_file_can_name_another_place(record, tmp_path, monkeypatch):
    path = tmp_path / "lineage.jsonl"
    transport = {"type": "file", "log_file_path": str(path), "append": True}
    (tmp_path / "openlineage.yml").write_text(json.dumps({"transport": transport}))
    assert send_lineage_events(record) == len(path.read_text().splitlines()) == len(events(record))


def test_nothing_is_sent_where_nothing_is_set_or_it_is_switched_off(record, server, monkeypatch):
    assert send_lineage_events(record) == 0
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert send_lineage_events(record) == 0
    assert server.received == []


def test_a_server_that_refuses_is_a_warning_and_no_error(record, server, monkeypatch, caplog):
    server.answer = 400
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
    with caplog.at_level(logging.WARNING, "tunetrail"):
        assert send_lineage_events(record) == 0
    assert "0 of 26 events were sent" in caplog.text
    assert len(server.received) == 1  # it does not go on asking
