"""The hub's own library reads the results back as they were."""

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from sft_core.exports.hub_results import hub_results, render_hub_results
from tests.sft_core.exports.tuned_record import START, tuned_record
from tests.sft_core.small_record import small_record


@pytest.fixture
def record(home):
    return tuned_record()


def test_the_hubs_parser_reads_back_what_was_measured(record):
    entries = parse_eval_result_entries(yaml.safe_load(render_hub_results(record)))
    assert entries == list(hub_results(record))
    (entry,) = entries
    assert (entry.dataset_id, entry.task_id, entry.value) == ("triage", "exact_match", 0.75)
    assert entry.date.startswith(START.date().isoformat())
    test = record.report("split").datasets["test"].sha256
    assert entry.notes == (
        f"20 rows held out by run {record.run_id}; SHA-256 {test}; base model 0.25; "
        "gain over it 0.5 (95 % interval 0.4 to 0.6)"
    )
    with pytest.raises(KeyError, match="task_id"):
        parse_eval_result_entries([{"dataset": {"id": "x"}, "value": 1}])


def test_a_data_set_of_the_hub_is_named_by_its_id(home, record):
    url = "https://huggingface.co/datasets/team/sums"
    card = record.config["card"] | {"data_url": url}
    (entry,) = hub_results(tuned_record(card=card))
    assert (entry.dataset_id, entry.source_url) == ("team/sums", url)


def test_a_run_without_an_evaluation_has_no_results(home):
    assert parse_eval_result_entries(yaml.safe_load(render_hub_results(small_record()))) == []
