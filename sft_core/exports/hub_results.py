"""The tuned model's held-out results in the form that the hub reads beside a model card.

The hub shows results on benchmarks that are registered there. The rows that a run holds out are
none of them, unless `card.data_url` names the data set there; then they are kept, and not shown.

Source: the hub's documentation of evaluation results, `.eval_results/*.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from sft_core.documents.card import readable
from sft_core.documents.data_card import final_splits
from sft_core.reports import RunRecord, StageReport

_ON_THE_HUB = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)")


def render_hub_results(record: RunRecord) -> str:
    """`eval_results.yaml`: an entry for each metric; an empty list where none was measured."""
    entries = eval_result_entries_to_yaml(list(hub_results(record)))
    return str(yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))


def hub_results(record: RunRecord) -> Iterator[EvalResultEntry]:
    """One entry a metric. The notes tell on which rows, against what, and how sure."""
    report = record.report("evaluate")
    found = _ON_THE_HUB.match(record.config["card"]["data_url"])
    for name in (*record.config["evaluation"]["metrics"], "loss"):
        if report is None or f"tuned_{name}" not in report.metrics:
            continue
        yield EvalResultEntry(
            dataset_id=found[1] if found else record.config["name"],
            task_id=name,
            value=report.metrics[f"tuned_{name}"],
            date=record.times["evaluate"][1].isoformat() if "evaluate" in record.times else None,
            source_url=record.config["card"]["data_url"] or None,
            notes=_notes(record, report, name),
        )


def _notes(record: RunRecord, report: StageReport, name: str) -> str:
    said = [f"{readable(report.metrics.get('num_items'))} rows held out by run {record.run_id}"]
    if test := final_splits(record).get("test"):
        said.append(f"SHA-256 {test.sha256}")
    if f"base_{name}" in report.metrics:
        said.append(f"base model {readable(report.metrics[f'base_{name}'])}")
    gain, low, high = (report.metrics.get(f"{name}_gain{end}") for end in ("", "_low", "_high"))
    if gain is not None and low is not None and high is not None:
        interval = f"95 % interval {readable(low)} to {readable(high)}"
        said.append(f"gain over it {readable(gain)} ({interval})")
    return "; ".join(said)
