import pyarrow.parquet as pq
import pytest

from sft_core.config import DedupConfig
from sft_core.records import Record
from sft_core.store import locate, read_records
from tasks.deduplication import deduplicate
from tests.conftest import put_records

WORDS = [f"w{k}" for k in range(70)]


@pytest.fixture
def data(home):
    """Rows 0, 2 and 4 are a chain, in which row 4 is not similar to row 0; 1 and 5 are copies."""
    first, second, third = (WORDS[start : start + 60] for start in (0, 2, 4))
    texts = [first, first, second, ["alone"], [*third, "w64", "w65"], third, third]
    messages = [[{"role": "user", "content": " ".join(text)}] for text in texts]
    return put_records(Record(row, f"id{row}", m) for row, m in enumerate(messages))


def story(report):
    decisions = pq.read_table(locate(report.files["decisions"])).to_pylist()
    return {d["row"]: (d["reason"], d["evidence"]) for d in decisions}


# 60 running words have 56 grams. Row 0 and 2 share 54 of 58, 2 and 4 54 of 60, 2 and 5 54 of 58;
# row 5 has 56 of the 58 grams of row 4; 0 shares 52 of 60 with 5 and 52 of 62 with 4: under 0.9.
EARLIEST = {
    1: ("exact_duplicate", "row=0"),
    2: ("near_duplicate", "row=0 jaccard=0.931"),
    4: ("near_duplicate", "row=0 via=2 jaccard=0.900"),
    5: ("near_duplicate", "row=0 via=2 jaccard=0.931"),
    6: ("exact_duplicate", "row=0 via=5"),
}
LONGEST = {
    0: ("near_duplicate", "row=4 via=2 jaccard=0.931"),
    1: ("exact_duplicate", "row=4 via=0"),
    2: ("near_duplicate", "row=4 jaccard=0.900"),
    5: ("near_duplicate", "row=4 jaccard=0.966"),
    6: ("exact_duplicate", "row=4 via=5"),
}


@pytest.mark.parametrize(("kept_row", "expected"), [("earliest", EARLIEST), ("longest", LONGEST)])
def test_a_dropped_row_names_the_row_that_stays_and_the_pair_that_proves_it(
    data, kept_row, expected
):
    report = deduplicate.body(data, DedupConfig(min_similarity=0.9, kept_row=kept_row))
    assert story(report) == expected
    kept = {record.row: record.cluster for record in read_records(report.data)}
    assert kept == {0 if kept_row == "earliest" else 4: "id0", 3: "id3"}
    assert report.metrics["num_near_duplicates"] == 3
    assert report.metrics["duplicate_rate"] == 5 / 7
    pairs = pq.read_table(locate(report.files["pairs"])).to_pylist()
    found = {(pair["row"], pair["other"]): round(pair["jaccard"], 3) for pair in pairs}
    assert found == {(0, 2): 0.931, (2, 4): 0.9, (2, 5): 0.931, (4, 5): 0.966}


def test_near_duplicates_that_stay_share_the_name_of_the_earliest(data):
    config = DedupConfig(min_similarity=0.9, near_duplicates="keep", kept_row="longest")
    report = deduplicate.body(data, config)
    assert story(report) == {
        1: ("exact_duplicate", "row=0"),
        6: ("exact_duplicate", "row=5"),
    }
    kept = {record.row: record.cluster for record in read_records(report.data)}
    assert kept == {0: "id0", 2: "id0", 3: "id3", 4: "id0", 5: "id0"}
