"""Every defect that the demo's generator planted is found, and nothing else is taken out."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sft_core.config.file import load_config
from sft_core.lineage.tracing import dropped_rows
from tests.conftest import ROOT

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def audited(prefect_server, tmp_path_factory):
    """Ledger lines of the demo by source line, and the home."""
    from flows.audit import audit

    home = tmp_path_factory.mktemp("audit") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNETRAIL_HOME", str(home))
        run_id = audit(load_config(ROOT / "examples/triage/demo.yaml"))
    ledger = pq.read_table(home / "runs" / run_id / "ledger.parquet").to_pylist()
    return {row["line"]: row for row in ledger}, home, run_id


def lines_dropped(ledger, *reasons):
    return {line for line, row in ledger.items() if row["reason"] in reasons}


def test_every_source_row_has_one_line(audited, truth):
    ledger, _, _ = audited
    assert sorted(ledger) == list(range(1, truth["num_rows"] + 1))
    assert all(row["fate"] in ("train", "validation", "test", "dropped") for row in ledger.values())


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("missing_completion", "missing_value"),
        ("null_completion", "missing_value"),
        ("empty_completion", "empty_text"),
        ("empty_prompt", "empty_text"),
        ("wrong_type", "wrong_type"),
        ("control_characters", "control_characters"),
        ("mojibake", "encoding_damage"),
        ("replacement_character", "encoding_damage"),
    ],
)
def test_malformed_rows_carry_their_reason(audited, truth, planted, reason):
    ledger, _, _ = audited
    for line in truth["malformed"][planted]:
        assert (ledger[line]["stage"], ledger[line]["reason"]) == ("validate", reason)


def test_validation_drops_only_what_is_malformed(audited, truth):
    ledger, _, _ = audited
    dropped = {line for line, row in ledger.items() if row["stage"] == "validate"}
    assert dropped == {line for lines in truth["malformed"].values() for line in lines}


def test_secrets_are_found_and_no_others(audited, truth):
    ledger, _, _ = audited
    assert lines_dropped(ledger, "secret") == {entry["line"] for entry in truth["secrets"]}


def test_exact_duplicates_point_to_their_first_row(audited, truth):
    ledger, _, _ = audited
    planted = {entry["line"]: entry["of"] for entry in truth["exact_duplicates"]}
    assert lines_dropped(ledger, "exact_duplicate") == set(planted)
    for line, original in planted.items():
        assert ledger[line]["evidence"] == f"row={original - 1}"


def test_the_list_of_dropped_rows_says_where_the_kept_one_lies(audited, truth, monkeypatch):
    monkeypatch.setenv("TUNETRAIL_HOME", str(audited[1]))
    listed = {row["line"]: row for row in dropped_rows(None, "exact_duplicate", None)}
    for entry in truth["exact_duplicates"]:
        row = listed[entry["line"]]
        assert row["other"] == f"{row['source']}:{entry['of']}"


def test_near_duplicates_are_found_and_no_others(audited, truth):
    ledger, _, _ = audited
    planted = {entry["line"] for entry in truth["near_duplicates"]}
    assert lines_dropped(ledger, "near_duplicate") == planted


def test_rows_that_leak_held_out_items_name_the_item(audited, truth):
    ledger, _, _ = audited
    leaks = {e["line"]: f"test:row={e['of'] - 1} " for e in truth["leaks"]}
    benchmark = {e["line"]: f"benchmark.jsonl:{e['item']} " for e in truth["benchmark_leaks"]}
    assert lines_dropped(ledger, "contaminated") == set(leaks | benchmark)
    for line, item in (leaks | benchmark).items():
        assert item in ledger[line]["evidence"]


def test_identifiers_are_redacted_wherever_they_stood(audited, truth):
    ledger, _, _ = audited
    kept = [entry for entry in truth["identifiers"] if ledger[entry["line"]]["fate"] != "dropped"]
    assert len(kept) > 150
    for entry in kept:
        assert f"{entry['kind']}@" in ledger[entry["line"]]["redacted"], entry["line"]


def test_no_planted_text_leaves_store_and_quarantine(audited, truth):
    """What MLflow, the card, the run folder and the chain hold must not quote a record."""
    _, home, _ = audited
    needles = [entry["text"].splitlines()[-1].encode() for entry in truth["identifiers"]]
    needles += [entry["text"].splitlines()[-1].encode() for entry in truth["secrets"]]
    files = [home / "mlflow.db"]
    for folder in ("runs", "mlartifacts", "chain"):
        files += [path for path in (home / folder).rglob("*") if path.is_file()]
    assert len(files) > 30
    for path in files:
        content = path.read_bytes()
        assert not [needle for needle in needles if needle in content], path


def test_rejected_rows_are_in_quarantine_as_they_came(audited, truth):
    _, home, _ = audited
    files = list((home / "quarantine").iterdir())
    text = b"".join(path.read_bytes() for path in files)
    for entry in truth["secrets"]:
        assert entry["text"].splitlines()[-1].encode() in text
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}


def test_the_validation_report_holds_no_record_text_and_loads_nothing(audited):
    _, home, run_id = audited
    page = Path(home / "runs" / run_id / "validation.html").read_text()
    assert "control_characters" in page
    assert not [part for part in ("http:", "https:", "src=", "<script", "@import") if part in page]
