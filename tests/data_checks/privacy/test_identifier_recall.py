"""Recall on text with gold spans, and false alarms on text that has hardly an identifier."""

import gzip
import json

from benchmarks.identifiers import alarms, recall_on_gold
from data_checks.privacy.identifiers import _SCANNER, KINDS, find_identifiers, protect
from sft_core.config import PrivacyConfig
from sft_core.records import Record

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
    recall = {entity: hits / n for entity, (hits, n) in recall_on_gold().items()}
    assert {entity: value for entity, value in recall.items() if value < FLOORS[entity]} == {}


def test_false_alarms_on_texts_without_identifiers(shared):
    """Dates aside, and people with a title, of whom word problems have many, rightly found."""
    kinds, num_titled, num_documents = alarms()
    num_alarms = sum(kinds.values()) - num_titled
    assert 1000 * num_alarms / num_documents < 3, kinds


def test_redaction_and_gates_on_real_text(shared):
    config = PrivacyConfig(**dict.fromkeys(KINDS, "redact"))
    rows = json.loads((shared / "data/pii/synth_dataset_v2.json").read_text(encoding="utf-8"))
    texts = [row["full_text"] for row in rows[::5]]
    # Neighbours joined: long texts, in which patterns look only near their gates.
    texts += ["\n".join(row["full_text"] for row in rows[at : at + 12]) for at in range(0, 600, 12)]
    with gzip.open(shared / "data/medquad.jsonl.gz", "rt", encoding="utf-8") as file:
        texts += [json.loads(line)["answer"] for _, line in zip(range(50), file, strict=False)]
    for text in texts:
        assert _SCANNER.scan(text) == _SCANNER.scan_ungated(text)
        record = Record(0, "", [{"role": "user", "content": text}])
        redacted = protect(record, config).record.messages[0]["content"]
        assert find_identifiers(redacted) == []
