"""The suite: each planted defect fails its expectation, and an error inside is no pass."""

import pandas as pd
import pytest

from data_checks.expectations import validate_features
from data_checks.features import features_of, roles_are_valid
from sft_core.config import ValidationConfig
from sft_core.errors import DataError
from sft_core.records import Record


def record(*turns, row=0):
    messages = [{"role": role, "content": content} for role, content in turns]
    return Record(row, "id", messages)


CLEAN = (("user", "q"), ("assistant", "a"))
DEFECTS = {
    "invalid_roles": (("assistant", "a"), ("user", "q")),
    "too_many_turns": CLEAN * 3,
    "empty_text": (("user", " "), ("assistant", "a")),
    "huge_text": (("user", "x" * 60), ("assistant", "a")),
    "control_characters": (("user", "bell \a"), ("assistant", "a")),
    "encoding_damage": (("user", "cafÃ©"), ("assistant", "a")),
}


def frame(*records):
    return pd.DataFrame([dict(features_of(r)) for r in records])


def test_each_defect_has_its_reason_and_clean_rows_have_none():
    rows = [record(*turns, row=n) for n, turns in enumerate(DEFECTS.values())]
    clean = [record(*CLEAN, row=100 + n) for n in range(5)]
    config = ValidationConfig(max_turns=4, max_chars=50)
    decisions = validate_features(frame(*rows, *clean), config).decisions()
    assert {d.row: d.reason for d in decisions} == dict(enumerate(DEFECTS))


def test_the_first_broken_expectation_gives_the_reason_and_all_are_evidence():
    bad = record(("user", ""), ("assistant", "\x00"), row=3)
    (decision,) = validate_features(frame(bad, record(*CLEAN)), ValidationConfig()).decisions()
    assert (decision.row, decision.reason) == (3, "empty_text")
    assert decision.evidence == "empty_text control_characters"


@pytest.mark.parametrize(
    "broken", [pd.DataFrame(), frame(record(*CLEAN)).drop(columns="num_chars")]
)
def test_an_empty_frame_or_a_missing_column_is_an_error_not_a_pass(broken):
    with pytest.raises(DataError, match="the feature frame fails"):
        validate_features(broken, ValidationConfig())


@pytest.mark.parametrize(
    ("roles", "valid"),
    [
        ("user assistant", True),
        ("system user assistant user assistant", True),
        ("user", False),
        ("user user assistant", False),
        ("system", False),
        ("user system assistant", False),
        ("user tool", False),
        ("", False),
    ],
)
def test_roles(roles, valid):
    messages = [{"role": role, "content": "x"} for role in roles.split()]
    assert roles_are_valid(messages) is valid
