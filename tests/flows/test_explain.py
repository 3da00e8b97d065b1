"""From an answer to the training rows behind it, from what a run sealed."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.cli import main
from flows.summary import load_run
from sft_core.store import locate, read_records
from tests.conftest import cached_stages, change

pytestmark = [pytest.mark.flow, pytest.mark.slow]


@pytest.fixture
def sft(prefect_server, used_home):
    from flows.sft import sft

    return sft


@pytest.fixture
def explain(capsys):
    def run(*args, code=0):
        capsys.readouterr()
        assert main(["explain", *args]) == code
        out = capsys.readouterr()
        return json.loads(out.out) if code == 0 and "--json" in args else out.out + out.err

    return run


def rows_of(config):
    text = Path(config.ingest.sources[0].path).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_an_answer_names_rows_with_sign_text_source_and_annotator(sft, home, explain, quick_config):
    source = quick_config.ingest.sources[0]
    rows = rows_of(quick_config)
    for number, row in enumerate(rows):
        row["annotator"] = f"annotator {number % 3}"
    rows[2]["prompt"] += " Mail to kim.example@example.org."
    Path(source.path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = source.model_dump(mode="json") | {"subgroups": ["sex", "annotator"]}
    config = change(quick_config, ingest={"sources": [named]})
    told = explain(sft(config), "--prompt", "x", "--output", "y", code=2)
    assert "Set attribution.enabled: true" in told
    run_id = sft(change(config, attribution={"enabled": True}))
    assert "train" in cached_stages(home, run_id)
    record = load_run(run_id)
    attributed = record.report("attribute")
    trained = list(read_records(record.report("decontaminate").data))
    table = pq.read_table(locate(attributed.private["features"]))
    assert table["row_id"].to_pylist() == [row.row_id for row in trained]
    assert attributed.metrics["num_attributed_rows"] == len(trained)
    assert attributed.metrics["num_snapshots"] == 4
    assert "kim.example" not in locate(attributed.private["rows"]).read_text()

    first = trained[0]
    prompt, output = first.prompt()[-1]["content"], first.completion()
    asked = (run_id, "--prompt", prompt, "--output", output)
    found = explain(*asked, "--top", "3", "--json")
    assert found == explain(*asked, "--top", "3", "--json")
    assert found["num_rows"] == len(trained)
    top = found["towards"][0]
    assert top["row_id"] == first.row_id
    assert [row["influence"] for row in found["towards"]] == sorted(
        (row["influence"] for row in found["towards"]), reverse=True
    )
    assert all(row["influence"] < 0 for row in found["away"])
    assert len(found["towards"]) == 3
    by_id = {row.row_id: row for row in trained}
    for row in found["towards"] + found["away"]:
        assert row["messages"] == by_id[row["row_id"]].messages
        original = rows[row["line"] - 1]
        assert row["source"] == source.path
        assert row["annotator"] == original["annotator"]
        assert original["completion"] == row["messages"][-1]["content"]
    shown = explain(*asked, "--top", "1")
    assert "pushed to this answer:" in shown
    assert f"{source.path}:{top['line']}" in shown
    assert top["annotator"] in shown

    assert "at least 1" in explain(*asked, "--top", "0", code=2)
    assert "no sealed run nowhere" in explain("nowhere", "--output", "x", code=2)
    assert "trained on prompts and answers: give --prompt" in explain(
        run_id, "--output", "x", code=2
    )
    path = locate(attributed.private["features"])
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert "SHA-256 is" in explain(*asked, code=6)


def test_a_run_without_snapshots_says_why_it_has_no_answer(sft, explain, quick_config):
    without = change(quick_config, training={"num_snapshots": 0}, attribution={"enabled": True})
    run_id = sft(without)
    told = explain(run_id, "--prompt", "a question", "--output", "an answer", code=2)
    assert "has no gradients" in told
    assert "training.num_snapshots above 0" in told


def test_plain_text_is_explained_without_a_prompt(sft, explain, quick_config, tmp_path):
    path = tmp_path / "texts.jsonl"
    texts = [row["prompt"] for row in rows_of(quick_config) if isinstance(row.get("prompt"), str)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text))
    plain = {"path": str(path), "columns": {"text": "text"}, "consent": "not needed"}
    policy = dict.fromkeys(("max_rejected_rate", "min_primary_gain", "min_loss_gain"))
    config = change(
        quick_config,
        ingest={"sources": [plain]},
        policy=policy,
        attribution={"enabled": True},
    )
    run_id = sft(config)
    record = load_run(run_id)
    first = next(read_records(record.report("decontaminate").data))
    found = explain(run_id, "--output", first.completion(), "--json")
    assert found["towards"][0]["row_id"] == first.row_id
    told = explain(run_id, "--prompt", "x", "--output", "y", code=2)
    assert "trained on plain text: leave --prompt out" in told
