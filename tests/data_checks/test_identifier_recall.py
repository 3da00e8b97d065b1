"""Recall on text with gold spans, and false alarms on text that has hardly an identifier."""

import gzip
import json
import re
from collections import Counter

from data_checks.identifiers import _SCANNER, KINDS, find_identifiers, protect
from sft_core.config import PrivacyConfig
from sft_core.records import Record

FITTING = {
    "EMAIL_ADDRESS": {"email"},
    "US_SSN": {"ssn"},
    "IP_ADDRESS": {"ip"},
    "IBAN_CODE": {"iban"},
    "CREDIT_CARD": {"card"},
    "PHONE_NUMBER": {"phone"},
    "DOMAIN_NAME": {"url"},
    "DATE_TIME": {"date"},
    "STREET_ADDRESS": {"street", "postal_code"},
    "ZIP_CODE": {"postal_code", "street"},
    "US_DRIVER_LICENSE": {"record_number"},
    "PERSON": {"name"},
}
FLOORS = {
    "EMAIL_ADDRESS": 0.99,
    "US_SSN": 0.99,
    "IP_ADDRESS": 0.99,
    "IBAN_CODE": 0.99,
    "CREDIT_CARD": 0.99,
    "PHONE_NUMBER": 0.97,
    "DOMAIN_NAME": 0.97,
    "DATE_TIME": 0.97,
    "US_DRIVER_LICENSE": 0.97,
    "STREET_ADDRESS": 0.8,
    "ZIP_CODE": 0.6,
    "PERSON": 0.1,
}


def test_recall_on_gold_spans(shared):
    """A gold span counts when findings of a fitting kind cover half of it; bare years do not."""
    rows = json.loads((shared / "data/pii/synth_dataset_v2.json").read_text(encoding="utf-8"))
    total, hits = Counter(), Counter()
    for row in rows:
        findings = find_identifiers(row["full_text"])
        for span in row["spans"]:
            kind = span["entity_type"]
            bare_year = kind == "DATE_TIME" and re.fullmatch("[0-9]{4}", span["entity_value"])
            if kind not in FITTING or bare_year:
                continue
            start, end = span["start_position"], span["end_position"]
            covered = sum(
                max(0, min(end, f.end) - max(start, f.start))
                for f in findings
                if f.kind in FITTING[kind]
            )
            total[kind] += 1
            hits[kind] += 2 * covered >= end - start
    recall = {kind: hits[kind] / total[kind] for kind in FITTING}
    print({kind: f"{recall[kind]:.3f} of {total[kind]}" for kind in recall})
    assert {kind: value for kind, value in recall.items() if value < FLOORS[kind]} == {}


def clean_documents(shared):
    with (shared / "data/gsm8k/train.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield f"{row['question']}\n{row['answer']}"
    articles = json.loads((shared / "data/pubmedqa/ori_pqal.json").read_text(encoding="utf-8"))
    for article in articles.values():
        yield "\n".join([article["QUESTION"], *article["CONTEXTS"]])


TITLED = re.compile(r"(?:Mr|Mrs|Ms|Miss|Dr|Mx|Sir|Prof|Professor|Doctor|Madam|Reverend)\.? $")


def test_false_alarms_on_texts_without_identifiers(shared):
    """Dates aside, and people with a title, of whom word problems have many, rightly found."""
    num_documents = num_alarms = num_titled = 0
    for text in clean_documents(shared):
        num_documents += 1
        for finding in find_identifiers(text):
            titled = finding.kind == "name" and TITLED.search(text[: finding.start])
            num_titled += bool(titled)
            num_alarms += finding.kind != "date" and not titled
    rate, titled_rate = 1000 * num_alarms / num_documents, 1000 * num_titled / num_documents
    print(f"a thousand documents: {rate:.2f} false alarms, {titled_rate:.1f} names with a title")
    assert rate < 3


def test_redaction_and_gates_on_real_text(shared):
    config = PrivacyConfig(**dict.fromkeys(KINDS, "redact"))
    rows = json.loads((shared / "data/pii/synth_dataset_v2.json").read_text(encoding="utf-8"))
    texts = [row["full_text"] for row in rows[::5]]
    with gzip.open(shared / "data/medquad.jsonl.gz", "rt", encoding="utf-8") as file:
        texts += [json.loads(line)["answer"] for _, line in zip(range(50), file, strict=False)]
    for text in texts:
        assert _SCANNER.scan(text) == _SCANNER.scan_ungated(text)
        record = Record(0, "", [{"role": "user", "content": text}])
        redacted = protect(record, config).record.messages[0]["content"]
        assert find_identifiers(redacted) == []
