"""From a row to its story, and from an erasure list to the models that saw the rows."""

import json
from pathlib import Path

import pytest

from flows.cli import main
from tests.conftest import change

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.fixture
def people_config(quick_config):
    """The quick run on rows that name a person each, and one e-mail address in line 8."""
    path = Path(quick_config.ingest.sources[0].path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows, start=1):
        row["person"] = f"MRN-{number % 100}"
    rows[7]["prompt"] += " Mail to kim.example@example.org."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = quick_config.ingest.sources[0].model_dump(mode="json")
    columns = source["columns"] | {"subject": "person"}
    return change(quick_config, ingest={"sources": [source | {"columns": columns}]})


def test_the_erased_leave_the_next_run_and_the_models_that_saw_them_are_named(
    prefect_server, home, people_config, tmp_path, capsys
):
    from flows.audit import audit
    from flows.sft import sft

    def trace(*args):
        capsys.readouterr()
        assert main(["trace", "--json", *args]) == 0
        return json.loads(capsys.readouterr().out)

    trained = sft(people_config)
    data = people_config.ingest.sources[0].path
    person = trace("subject", "MRN-7")
    assert {story["line"] for story in person} == {7, 107, 207}
    assert "MRN-7" not in json.dumps(person)
    (eighth,) = trace("row", f"{data}:8")
    (by_id,) = trace("row", eighth["row_id"][:12])
    assert by_id == eighth
    (run,) = eighth["runs"]
    stages = {stage["stage"]: stage for stage in run["stages"]}
    assert (run["run_id"], run["fate"]) == (trained, stages["split"]["action"])
    assert stages["protect"]["action"] == "redacted"
    assert "email" in stages["protect"]["evidence"]
    seen = [story for story in person if story["runs"][0]["fate"] == "train"]
    assert seen, "no row of the person was trained on: choose another person"
    for story in seen:
        (model,) = story["runs"][0]["models"]
        assert (model["name"], model["version"]) == ("quick", "1")

    erase = tmp_path / "erase.txt"
    erase.write_text(f"MRN-7\n{eighth['row_id']}\nMRN-nobody\n")
    audited = audit(change(people_config, terms={"erasure_list": str(erase)}))
    dropped = trace("--dropped", "--reason", "erased")
    assert {line["line"] for line in dropped} == {7, 8, 107, 207}
    record = json.loads((home / "runs" / audited / "run.json").read_text())
    reports = {report["stage"]: report for report in record["reports"]}
    assert reports["permit"]["metrics"]["num_unmatched_erasure_entries"] == 1
    count = len(seen) + (run["fate"] == "train")
    models = reports["account"]["tables"]["models_that_saw_erased_rows"]["rows"]
    assert models == [["quick", "1", trained, count]]

    assert main(["trace", "row", f"{data}:8"]) == 0
    told = capsys.readouterr().out
    assert "dropped erased erasure_list" in told
    assert f"run {trained}" in told
    assert "MRN" not in told
    for found in home.glob("runs/**/*"):
        assert not found.is_file() or b"MRN-" not in found.read_bytes(), found
    assert main(["verify"]) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trace"], "name a row"),
        (["trace", "row", "abc"], "8 or more digits"),
        (["trace", "row", "rows.jsonl:1"], "no row 'rows.jsonl:1' in 0 sealed runs"),
        (["trace", "subject", "MRN-1"], "no row of that subject"),
        (["trace", "--dropped"], "no sealed run"),
        (["trace", "row", "rows.jsonl:1", "--dropped"], "ask for one thing"),
        (["trace", "row", "rows.jsonl:1", "--reason", "secret"], "go with --dropped"),
    ],
)
def test_what_cannot_be_traced_is_told_in_one_line(home, args, message, capsys):
    assert main(args) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "terms", "gate"),
    [
        ({"consent": "unknown"}, {}, "num_unconsented_rows is 300"),
        ({"licence": "CC-BY-NC-4.0"}, {"allowed_licences": ["MIT"]}, "num_unlicensed_rows is 300"),
    ],
)
def test_rows_on_other_terms_stop_the_run_before_anything_is_read_from_them(
    prefect_server, home, quick_config, source, terms, gate
):
    from flows.audit import audit
    from sft_core.errors import GateError

    first = quick_config.ingest.sources[0].model_dump(mode="json") | source
    config = change(quick_config, ingest={"sources": [first]}, terms=terms)
    with pytest.raises(GateError, match=gate):
        audit(config)
