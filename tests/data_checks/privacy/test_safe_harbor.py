"""The table of 18 rows says what is measured, what is not, and what nothing looks for."""

import hashlib

from benchmarks.identifiers import GOLD, LETTERS, recall_on_gold
from data_checks.privacy.safe_harbor import measured_recall, safe_harbor_table
from sft_core.config import PrivacyConfig


def test_every_letter_has_a_row_and_only_pictures_and_bodies_have_no_detector():
    rows = safe_harbor_table(PrivacyConfig(), {}).rows
    assert [row[0][:3] for row in rows] == [f"({letter})" for letter in "ABCDEFGHIJKLMNOPQR"]
    assert [row[0][1] for row in rows if row[1] == "not covered"] == ["P", "Q"]
    assert [row[0][1] for row in rows if row[3] == "not measured"] == list("EHILMR")


def test_actions_and_findings_are_those_of_the_run():
    config = PrivacyConfig(phone="drop", date="shift", age="generalize")
    rows = {
        row[0][1]: row for row in safe_harbor_table(config, {"phone": 3, "date": 2, "age": 1}).rows
    }
    assert (rows["D"][2], rows["D"][6]) == ("drop", 3)
    assert (rows["C"][2], rows["C"][6]) == ("date: shift, age: generalize", 3)
    assert rows["E"][6] is None  # told with D


def test_the_bundled_recalls_are_those_of_the_code(shared):
    bundled = measured_recall()
    assert bundled["sha256"] == hashlib.sha256(GOLD.read_bytes()).hexdigest()
    now = recall_on_gold()
    for letter, entities in LETTERS.items():
        hits, n = (sum(now[entity][i] for entity in entities) for i in (0, 1))
        assert bundled["recall"][letter] == {"hits": hits, "n": n}, letter


def test_recall_on_values_that_the_rules_had_not_seen_stands_beside():
    rows = {row[0][1]: row for row in safe_harbor_table(PrivacyConfig(), {}).rows}
    assert rows["F"][5] == "1.000 behind a cue, 1.000 bare"
    assert rows["B"][5].startswith("0.5")
    assert rows["A"][5] == "not measured"
