import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sft_core.config import BenchmarkFile, ContaminationConfig
from sft_core.errors import DataError
from sft_core.records import Record
from sft_core.store import read_records
from tasks.contamination import decontaminate
from tests.conftest import put_records

QUESTIONS = [" ".join(f"q{item}w{k}" for k in range(20)) for item in range(4)]


def splits(**prompts):
    """Data sets by split; rows are numbered through."""
    rows = [(name, prompt) for name, texts in prompts.items() for prompt in texts]
    records = [
        (name, Record(row, str(row), [{"role": "user", "content": prompt}]))
        for row, (name, prompt) in enumerate(rows)
    ]
    return {name: put_records(r for split, r in records if split == name) for name in prompts}


def write(path, rows):
    """The same rows as JSONL, CSV or Parquet."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    ("name", "line"), [("b.jsonl", 2), ("b.csv", 3), ("b.parquet", 2)], ids=str
)
def test_rows_that_leak_go_and_the_item_is_named(home, tmp_path, name, line):
    path = tmp_path / name
    write(
        path, [{"question": q, "answer": "7"} for q in ("What else is there then?", QUESTIONS[0])]
    )
    data = splits(
        train=[
            "Nothing to see here.",
            f"Solve: {QUESTIONS[0]}",
            " ".join(QUESTIONS[1].split()[:16]),
        ],
        validation=[],
        test=[QUESTIONS[1], QUESTIONS[2]],
    )
    config = ContaminationConfig(benchmarks=(BenchmarkFile(path=str(path), columns=("question",)),))
    report = decontaminate.body(data, config)
    assert [r.row for r in read_records(report.data)] == [0]
    # The copy of 16 of 20 words has 4 of 8 13-grams and 14 of 18 3-grams.
    ledger = pq.read_table(home / report.files["decisions"].path).to_pylist()
    assert {d["row"]: d["evidence"] for d in ledger} == {
        1: f"{path}:{line} overlap=1.000 similarity=1.000",
        2: "test:row=3 overlap=0.500 similarity=0.778",
    }
    assert report.tables["leaks"].rows == (("validation", 0, 0), ("test", 1, 1), (str(path), 1, 1))
    assert report.metrics["num_leaks"] == 2


def test_a_benchmark_without_its_column_is_an_error(home, tmp_path):
    write(tmp_path / "b.jsonl", [{"question": QUESTIONS[0]}])
    benchmark = BenchmarkFile(path=str(tmp_path / "b.jsonl"), columns=("question", "answer"))
    data = splits(train=["x"], validation=[], test=[])
    with pytest.raises(DataError, match=r"b.jsonl: line 1: no column 'answer'"):
        decontaminate.body(data, ContaminationConfig(benchmarks=(benchmark,)))


def test_an_empty_cell_is_no_item(home, tmp_path):
    write(tmp_path / "b.jsonl", [{"question": None}])
    benchmark = BenchmarkFile(path=str(tmp_path / "b.jsonl"), columns=("question",))
    data = splits(train=["None", "none"], validation=[], test=[])
    report = decontaminate.body(data, ContaminationConfig(benchmarks=(benchmark,)))
    assert report.metrics["num_dropped"] == 0
