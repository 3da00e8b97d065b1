"""Pseudonyms, shifted dates and coarser values, and who may ask for them."""

import re
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.privacy.date_shift import shift, year
from data_checks.privacy.identifiers import KINDS, find_identifiers, protect
from sft_core.config import PrivacyConfig
from sft_core.config.file import parse_config
from sft_core.errors import ConfigError
from sft_core.records import Record
from tests.data_checks.privacy.test_identifiers import TEXTS

KEY = b"a key of a test, 32 bytes long.."


def treat(text, key=KEY, row_id="a" * 64, **actions):
    row = Record(0, row_id, [{"role": "user", "content": text}])
    return protect(row, PrivacyConfig(**actions), key).record.messages[0]["content"]


# Pseudonyms -----------------------------------------------------------------------------------


def test_equal_values_have_equal_pseudonyms_in_every_row_under_one_key():
    first = treat("Mr Jones came. SSN 853-37-1694.", name="pseudonymize", ssn="pseudonymize")
    again = treat("Mr JONES: 853 37 1694", row_id="b" * 64, name="pseudonymize", ssn="pseudonymize")
    pseudonyms = re.findall(r"\[(?:NAME|SSN)_[0-9a-f]{10}\]", first)
    assert len(pseudonyms) == 2
    assert again == f"Mr {pseudonyms[0]}: {pseudonyms[1]}"
    assert treat("Mr Jonas", name="pseudonymize") != f"Mr {pseudonyms[0]}"


@given(st.binary(min_size=16, max_size=32), st.binary(min_size=16, max_size=32))
def test_another_key_gives_other_pseudonyms(one, other):
    texts = [treat("ana@example.org", key, email="pseudonymize") for key in (one, other)]
    assert (texts[0] == texts[1]) == (one == other)


@pytest.mark.parametrize("action", ["pseudonymize", "shift"])
def test_without_a_key_nothing_is_treated(action):
    with pytest.raises(ConfigError, match="secret key"):
        treat("on 2024-03-17", key=None, date=action)


# Dates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "days", "expected"),
    [
        ("2024-02-28", 2, "2024-03-01"),  # 2024 is a leap year
        ("2005-07-21T18:19:22Z", 20, "2005-08-10T18:19:22Z"),
        ("7/30/1964", 5, "8/04/1964"),
        ("25/12/2004", 7, "01/01/2005"),
        ("03/04/2004", 1, "03/05/2004"),  # reads both ways: month first
        ("03.04.2004", 1, "04.04.2004"),  # behind dots, day first
        ("12/31/99", 1, "01/01/00"),
        ("3 May 2004", 30, "2 Jun 2004"),
        ("3rd of September 2004", -2, "1st of September 2004"),
        ("03-MAY-04", 40, "12-JUN-04"),
        ("March 5, 1999", -5, "February 28, 1999"),
        ("Friday", 3, "Monday"),
        ("September 2011", 3, None),  # no day
        ("May 3rd", 3, None),  # no year
        ("30.02.2004", 1, None),
    ],
)
def test_a_shifted_date_keeps_its_format(written, days, expected):
    assert shift(written, days) == expected


@given(st.dates(date(1902, 1, 1), date(2090, 1, 1)), st.integers(-365, 365))
def test_shifting_is_adding_days(day, days):
    later = day + timedelta(days=days)
    assert shift(day.isoformat(), days) == later.isoformat()
    assert shift(f"{day:%d.%m.%Y}", days) == f"{later:%d.%m.%Y}"
    assert shift(f"{day:%d %B %Y}", days) in (f"{later:%d %B %Y}", f"{later:%d %b %Y}")


def test_all_dates_of_a_row_move_by_the_same_days_and_rows_by_others():
    text = "In 2024-03-17, out 2024-03-27, seen in May 2024."
    moved = treat(text, date="shift")
    days = [date.fromisoformat(d) for d in re.findall(r"\d{4}-\d{2}-\d{2}", moved)]
    assert (days[1] - days[0]).days == 10
    assert 1 <= abs((days[0] - date(2024, 3, 17)).days) <= 365
    assert moved.endswith("seen in [DATE_1].")
    rows = {treat(text, row_id=f"{n:064}", date="shift") for n in range(20)}
    assert len(rows) > 15
    assert treat(text, date="shift") == moved


# Coarser values -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("date", "on March 5, 1999 and 7/30/64", "on 1999 and 64"),
        ("date", "on May 3rd", "on [DATE_1]"),
        ("age", "A 94-year-old woman", "A [AGE_90+]-year-old woman"),
        ("postal_code", "in Springfield, IL 62704-1234.", "in Springfield, IL 627**-****."),
        ("postal_code", "in Keene, NH 03601.", "in Keene, NH 000**."),  # fewer than 20,000 people
        ("postal_code", "near SW1A 1AA", "near SW1* ***"),
        ("ip", "from 203.0.113.7 only", "from 203.0.113.* only"),
        ("ip", "from 192.168.01.1 only", "from 192.168.01.* only"),
        ("ip", "from 2001:db8::8a2e:370:7334", "from 2001:0db8:0000:*"),
    ],
)
def test_generalize(kind, text, expected):
    generalized = treat(text, **{kind: "generalize"})
    assert generalized == expected
    assert kind not in {f.kind for f in find_identifiers(generalized)}


def test_the_year_of_a_date():
    assert year("2005-07-21T18:19:22Z") == "2005"
    assert year("03-MAY-04") == "04"
    assert year("May 3rd") is None


# Config ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "action"),
    [("email", "shift"), ("name", "generalize"), ("secret", "pseudonymize"), ("age", "shift")],
)
def test_an_action_that_makes_no_sense_is_refused(kind, action):
    with pytest.raises(ConfigError, match=rf"privacy\.{kind}: .*'keep', 'redact'.*{action}"):
        parse_config({"privacy": {kind: action}}, "test")


def test_secrets_fail_by_default():
    assert PrivacyConfig().secret == "fail"
    assert not PrivacyConfig().needs_key


ACTIONS = {
    **dict.fromkeys(KINDS, "pseudonymize"),
    **dict.fromkeys(("date", "age", "postal_code", "ip"), "generalize"),
    "secret": "redact",
}


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_nothing_is_left_after_any_treatment(text):
    treated = treat(text, **ACTIONS)
    assert find_identifiers(treated) == []
    assert treat(treated, **ACTIONS) == treated
