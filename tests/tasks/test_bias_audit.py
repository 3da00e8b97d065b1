import csv

from examples.triage.generate import build
from sft_core.config import BiasConfig
from sft_core.records import Record
from sft_core.store import locate
from tasks.bias_audit import audit_bias
from tests.conftest import put_records


def demo(skew):
    for number, row in enumerate(build(skew=skew)[0]):
        if isinstance(row.get("completion"), str):
            turns = [("user", row["prompt"]), ("assistant", row["completion"])]
            messages = [{"role": role, "content": content} for role, content in turns]
            yield Record(number, str(number), messages)


def test_the_skewed_demo_has_plots_and_a_file_of_its_associations(home):
    data = put_records(demo(skew=True))
    report = audit_bias.body(data, BiasConfig(), 0)
    assert report.metrics["label_disparity"] > 0.2
    assert report.figures.keys() == {"groups", "associations"}
    text = locate(report.files["associations"]).read_text(encoding="utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    assert {(line["group"], line["word"]) for line in lines} == {
        ("female", "soon"),
        ("male", "urgent"),
    }
    assert audit_bias.body(data, BiasConfig(), 0) == report


def test_without_associations_there_is_no_such_plot(home):
    report = audit_bias.body(put_records(demo(skew=False)), BiasConfig(), 0)
    assert report.figures.keys() == {"groups"}
    empty = audit_bias.body(put_records([]), BiasConfig(), 0)
    assert empty.figures == {}
    assert empty.metrics["num_rows"] == 0
