"""Unique texts are planted in every place of the data; nothing a run leaves may quote one.

What the store and the quarantine hold is the data itself. All else is looked at, byte by byte, and
unpacked where it is compressed: the databases and artifacts of MLflow and Prefect, results and logs
of Prefect, the run folder with card, page and reports, the chain, and what the command printed.
"""

import gzip
import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from tests.conftest import BRIEF, ROOT, tracking

pytestmark = [pytest.mark.flow, pytest.mark.slow]

NUM_PLAIN = 300
IDENTIFIERS = {
    "email": "zq.vantongeren7@zqmail.example.org",
    "phone": "+44 20 7946 0713",
    "social_security": "536-22-8817",
    "record_number": "ZQ5550137",
    "iban": "GB82 WEST 1234 5698 7654 32",
    "card_number": "4539 1488 0343 6467",
    "name": "Zqondilwe",
}
SENTENCE = (
    "Write to {email}, call {phone}; SSN {social_security}, MRN {record_number}, account {iban}, "
    "card {card_number}, seen with Mr. {name}."
).format(**IDENTIFIERS)
SECRET = "AKIAZQ7XLEAKTESTZQ42"
WORDS = {
    place: f"zqx{place}zqx"
    for place in ("empty", "wrong", "suite", "secret", "near", "held", "unlicensed", "erased")
}


def planted_rows(rows):
    """The rows with one more of every kind that a stage takes out or changes."""
    note = {**rows[0], "licence": "CC0-1.0", "person": "nobody"}
    plain = [{**row, "licence": "CC0-1.0", "person": "nobody"} for row in rows]
    original = {**note, "prompt": f"{rows[5]['prompt']} {rows[6]['prompt']}"}
    return [
        *plain,
        original,
        {**note, "prompt": f"{rows[1]['prompt']} {SENTENCE}"},
        {**note, "completion": f"{rows[2]['completion']} {SENTENCE}"},
        {**note, "prompt": f"{rows[4]['prompt']} Once more.", "sex": IDENTIFIERS["email"]},
        {**note, "prompt": WORDS["empty"], "completion": ""},
        {**note, "prompt": WORDS["wrong"], "completion": 7},
        {**note, "prompt": f"A note on {WORDS['suite']} alone."},
        {**note, "prompt": f"{WORDS['secret']} aws_access_key_id = {SECRET}"},
        {**original, "prompt": f"{original['prompt']} {WORDS['near']}"},
        {**note, "prompt": f"{LEAKED} {WORDS['held']}"},
        {**note, "prompt": f"Notes about {WORDS['unlicensed']}.", "licence": "secret licence"},
        {**note, "prompt": f"Notes about {WORDS['erased']}.", "person": "zq-person-0713"},
    ]


LEAKED = (
    "A retired ferryman was carried in from the quay with numb fingers, blue lips and a torn "
    "sleeve after eleven hours beside an overturned barge"
)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The home of a whole run and of an audit that fails, and what both printed."""
    folder = tmp_path_factory.mktemp("leaks")
    home = folder / "home"
    lines = (ROOT / "examples/triage/data/referrals.jsonl").read_text().splitlines()[:NUM_PLAIN]
    rows = planted_rows([json.loads(line) for line in lines])
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "benchmark.jsonl").write_text(json.dumps({"question": LEAKED, "answer": "Warmth."}))
    (folder / "erase.txt").write_text("zq-person-0713\n")
    rule = {"column": "prompt", "regex": WORDS["suite"]}
    kind = "expect_column_values_to_not_match_regex"
    suite = {"name": "own", "expectations": [{"type": kind, "kwargs": rule}]}
    (folder / "suite.json").write_text(json.dumps(suite))
    config = {
        "name": "leaks",
        "ingest": {
            "sources": [
                {
                    "path": str(folder / "rows.jsonl"),
                    "subgroups": ["sex"],
                    "consent": "not needed",
                    "columns": {"licence": "licence", "subject": "person"},
                }
            ]
        },
        "terms": {
            "allowed_licences": ["CC0-1.0"],
            "erasure_list": str(folder / "erase.txt"),
        },
        "validation": {"suite": str(folder / "suite.json")},
        "privacy": {"secret": "drop"},
        "contamination": {
            "benchmarks": [{"path": str(folder / "benchmark.jsonl"), "columns": ["question"]}]
        },
        "model": {"model_name_or_path": str(ROOT / "examples/triage/base")},
        "training": {"max_steps": 4, "logging_steps": 1},
        **BRIEF,
        "policy": {
            "min_test_rows": 5,
            "max_label_disparity": None,
            "max_subgroup_gap": None,
            "max_unlicensed_rows": None,
        },
    }
    printed = [command(folder, home, "run", config)]
    printed.append(command(folder, home, "audit", {**config, "privacy": {"secret": "fail"}}))
    return home, printed


def command(folder, home, verb, config):
    path = folder / f"{verb}.json"
    path.write_text(json.dumps(config))
    environment = {key: value for key, value in os.environ.items() if "PREFECT" not in key}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", verb, str(path)],
        cwd=ROOT,
        env=environment | {"TUNETRAIL_HOME": str(home)},
        capture_output=True,
        text=True,
    )


def test_the_planted_rows_reached_every_stage(left):
    """Else the search below would prove nothing."""
    home, (whole, failed) = left
    assert whole.returncode in (0, 3), whole.stderr
    assert failed.returncode == 3
    assert "num_forbidden_rows" in failed.stderr
    ledgers = [pq.read_table(path).to_pylist() for path in (home / "runs").glob("*/ledger.parquet")]
    (full,) = [rows for rows in ledgers if "train" in {row["fate"] for row in rows}]
    assert [row["reason"] for row in full[NUM_PLAIN + 4 :]] == [
        "empty_text",
        "wrong_type",
        "suite:expect_column_values_to_not_match_regex:prompt",
        "secret",
        "near_duplicate",
        "contaminated",
        "licence_not_allowed",
        "erased",
    ]
    in_prompt, in_completion, in_meta = full[NUM_PLAIN + 1 : NUM_PLAIN + 4]
    assert in_prompt["redacted"].count("@0:") == len(IDENTIFIERS)
    assert in_completion["redacted"].count("@1:") == len(IDENTIFIERS)
    assert in_meta["redacted"].startswith("email@meta:")
    kept = b"".join(p.read_bytes() for p in (home / "store").rglob("*") if p.is_file())
    assert IDENTIFIERS["email"].encode() in kept


def test_nothing_but_store_and_quarantine_quotes_them(left):
    home, printed = left
    needles = [text.encode() for text in (*IDENTIFIERS.values(), *WORDS.values(), SECRET)]
    needles += [b"zq-person-0713", LEAKED.encode()]
    for done in printed:
        assert not [n for n in needles if n.decode() in done.stdout + done.stderr]
    files = [
        path
        for path in home.rglob("*")
        if path.is_file() and path.relative_to(home).parts[0] not in ("store", "quarantine")
    ]
    kinds = {"/".join(path.relative_to(home).parts[:1]) for path in files}
    assert {"mlflow.db", "mlartifacts", "runs", "chain", "prefect", "logs"} <= kinds
    assert [path for path in files if path.name == "prefect.db"]
    for path in files:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        if path.suffix == ".parquet":
            content = json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        assert not [needle for needle in needles if needle in content], path


def test_mlflow_holds_the_same_nothing_through_its_client(left):
    home, _ = left
    client = tracking(home)
    (experiment,) = [e for e in client.search_experiments() if e.name == "leaks"]
    runs = client.search_runs([experiment.experiment_id])
    text = json.dumps([run.to_dictionary() for run in runs])
    assert "zqx" not in text
    assert "Zqondilwe" not in text
