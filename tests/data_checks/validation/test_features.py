"""The numbers that rules judge, against their plain definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_checks.intake.shaping import DEFECT
from data_checks.validation.features import features_of, roles_are_valid, text_of
from sft_core.records import Record

TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\x00\t\n\r\x1b\x7fÂÃâ€\ufffd©"))


def chat(*contents, system=()):
    roles = ["system"] * len(system) + ["user", "assistant"] * len(contents)
    contents = [*system, *contents]
    return Record(0, "id", [{"role": r, "content": c} for r, c in zip(roles, contents)])  # noqa: B905


@given(TEXT, TEXT)
def test_control_characters_are_the_ascii_ones_but_white_space(prompt, completion):
    controls = {*map(chr, range(32)), "\x7f"} - set("\t\n\r")
    expected = sum(c in controls for c in prompt + completion)
    assert features_of(chat(prompt, completion)).num_control_characters == expected


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("cafÃ© Â°C â€™ \ufffd", 4),
        ("café, naïve, Ångström, â la carte", 0),
        ("plain", 0),
    ],
)
def test_damaged_characters(text, count):
    assert features_of(chat("q", text)).num_damaged_characters == count


def test_lengths_and_turns():
    features = features_of(chat(" abc ", "de\n"))
    # "abc" and "de" without outer white space; 5 + 3 characters and the newline between them
    assert (features.shortest_message_chars, features.completion_chars) == (2, 2)
    assert (features.num_chars, features.num_turns) == (9, 2)


def test_a_defect_is_told_apart_from_bad_roles():
    features = features_of(Record(0, "id", [], {DEFECT: "wrong_type"}))
    assert (features.has_wrong_type, features.has_missing_value) == (1, 0)
    assert (features.has_invalid_roles, features.completion_chars) == (0, 0)


def test_parts_of_the_text():
    record = chat("a", "b", "c", "d", system=["s"])
    parts = [text_of(record, column) for column in ("system", "prompt", "completion")]
    assert parts == ["s", "a\nb\nc", "d"]
    assert text_of(chat("a", "b"), "system") is None
    assert text_of(Record(0, "id", []), "completion") is None


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


def test_plain_text_is_one_message_and_no_part_of_a_conversation():
    text = {"role": "text", "content": "Once upon a time."}
    assert roles_are_valid([text])
    assert not roles_are_valid([text, text])
    assert not roles_are_valid([{"role": "user", "content": "q"}, text])
    record = Record(0, "id", [text])
    assert features_of(record).completion_chars == 17
    assert [text_of(record, c) for c in ("system", "prompt", "completion")] == [
        None,
        None,
        "Once upon a time.",
    ]
