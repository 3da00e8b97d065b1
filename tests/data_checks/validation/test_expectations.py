"""The judge: each planted defect fails its rule, chunks add up, an error inside is no pass."""

import json
import logging

import pytest

from data_checks.intake.shaping import DEFECT
from data_checks.validation import expectations
from data_checks.validation.expectations import RecordJudge
from data_checks.validation.rules import BY_ROW, BY_TABLE
from sft_core.config import ValidationConfig
from sft_core.errors import ConfigError, DataError
from sft_core.records import Record

CLEAN = (("user", "q"), ("assistant", "a"))
DEFECTS = {
    "invalid_roles": (("assistant", "a"), ("user", "q")),
    "too_many_turns": CLEAN * 3,
    "empty_text": (("user", " "), ("assistant", "a")),
    "huge_text": (("user", "x" * 60), ("assistant", "a")),
    "control_characters": (("user", "bell \a"), ("assistant", "a")),
    "encoding_damage": (("user", "cafÃ©"), ("assistant", "a")),
}
SECRET = "zq7-unique-token"
REGEX = "expect_column_values_to_match_regex"
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
MEAN = "expect_column_mean_to_be_between"
DISTINCT = "expect_column_distinct_values_to_be_in_set"
MOST_COMMON = "expect_column_most_common_value_to_be_in_set"


def record(*turns, row=0, **meta):
    messages = [{"role": role, "content": content} for role, content in turns]
    return Record(row, "id", messages, meta)


def answers(*texts, **meta):
    return [
        record(("user", "q"), ("assistant", text), row=n, **{k: v[n] for k, v in meta.items()})
        for n, text in enumerate(texts)
    ]


@pytest.fixture
def suite(tmp_path):
    """Writes a suite file of `(type, kwargs)` or `(type, kwargs, reason)` and names it."""

    def write(*entries):
        path = tmp_path / "suite.json"
        written = [
            {"type": kind, "kwargs": kwargs, "meta": {"reason": reason[0]} if reason else {}}
            for kind, kwargs, *reason in entries
        ]
        path.write_text(json.dumps({"name": "own", "expectations": written}))
        return ValidationConfig(suite=str(path))

    return write


def judged(config, records):
    """Reasons by row, and the outcome."""
    judge = RecordJudge(config)
    records = list(records)
    found = list(judge.judge(records))
    assert [r for r, _ in found] == records
    return {d.row: d.reason for _, d in found if d}, judge.validation()


def test_each_defect_has_its_reason_and_clean_rows_have_none():
    rows = [record(*turns, row=n) for n, turns in enumerate(DEFECTS.values())]
    clean = [record(*CLEAN, row=100 + n) for n in range(5)]
    reasons, _ = judged(ValidationConfig(max_turns=4, max_chars=50), rows + clean)
    assert reasons == dict(enumerate(DEFECTS))


def test_the_first_broken_rule_gives_the_reason_and_all_are_evidence():
    bad = record(("user", ""), ("assistant", "\x00"), row=3)
    ((_, decision),) = RecordJudge(ValidationConfig()).judge([bad])
    assert (decision.row, decision.reason) == (3, "empty_text")
    assert decision.evidence == "empty_text control_characters"


def test_no_rows_are_an_error_not_a_pass():
    with pytest.raises(DataError, match="no rows to judge"):
        judged(ValidationConfig(), [])


@pytest.mark.parametrize("order", [1, -1])
def test_chunks_and_order_do_not_matter(monkeypatch, order):
    monkeypatch.setattr(expectations, "_CHUNK_ROWS", 3)
    rows = [record(*turns, row=n) for n, turns in enumerate(DEFECTS.values())]
    reasons, outcome = judged(ValidationConfig(max_turns=4, max_chars=50), rows[::order])
    assert reasons == dict(enumerate(DEFECTS))
    failed = {o.rule.reason: o.num_failed for o in outcome.outcomes if o.num_failed}
    assert failed == dict.fromkeys(DEFECTS, 1)
    assert {o.num_judged for o in outcome.outcomes} == {outcome.num_rows} == {6}


def test_own_rules_quarantine_rows_by_text_and_subgroup(suite):
    config = suite(
        (REGEX, {"column": "completion", "regex": "^(?!maybe)(yes|no|maybe)$"}),
        (IN_SET, {"column": "meta.sex", "value_set": ["f"]}, "sex"),
        *[(BETWEEN, {"column": "num_turns", "max_value": 2})] * 2,
    )
    rows = answers("yes", "maybe", "no", sex=["f", "f", "x"])
    reasons, outcome = judged(config, rows)
    assert reasons == {1: "suite:expect_column_values_to_match_regex:completion", 2: "sex"}
    assert [o.num_failed for o in outcome.outcomes[-4:]] == [1, 1, 0, 0]
    assert outcome.num_failed_expectations == 0


def test_columns_hold_the_parts_of_the_text(suite):
    def is_set(column, value):
        return (IN_SET, {"column": column, "value_set": [value]})

    config = suite(is_set("system", "s"), is_set("prompt", "a\nb\nc"), is_set("completion", "d"))
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    without = record(("user", "a\nb\nc"), ("assistant", "d"), row=1)
    reasons, outcome = judged(config, [record(*turns), without])
    assert reasons == {}
    assert [o.num_judged for o in outcome.outcomes[-3:]] == [1, 2, 2]  # an empty cell is no row


# Ten rows, two fail: 8/10 pass, which meets 0.8 and not 0.81; in chunks of 5 the last has 3/5.
@pytest.mark.parametrize(("mostly", "limit"), [(0.8, "met"), (0.81, "not met")])
def test_mostly_is_a_limit_on_the_share_and_failing_rows_go_in_any_case(
    suite, monkeypatch, mostly, limit
):
    monkeypatch.setattr(expectations, "_CHUNK_ROWS", 5)
    length = {"column": "completion", "min_value": 2, "mostly": mostly}
    config = suite(("expect_column_value_lengths_to_be_between", length))
    reasons, outcome = judged(config, answers(*["long"] * 8, "s", "s"))
    assert sorted(reasons) == [8, 9]
    assert outcome.outcomes[-1].limit == limit
    assert outcome.num_failed_expectations == (limit == "not met")


def test_rules_about_all_rows_are_judged_over_all_chunks(suite, monkeypatch):
    monkeypatch.setattr(expectations, "_CHUNK_ROWS", 2)
    config = suite(
        # (1 + 2 + 6) / 3 = 3, which no chunk alone has: 1.5 and 6
        (MEAN, {"column": "completion_chars", "min_value": 3, "max_value": 3}),
        ("expect_table_row_count_to_equal", {"value": 3}),
        (MEAN, {"column": "meta.age", "max_value": 29}),
        (DISTINCT, {"column": "meta.sex", "value_set": ["f", "m"]}),
    )
    rows = answers("a", "ab", "abcdef", age=[20, 30, 40], sex=["f", "f", "m"])
    reasons, outcome = judged(config, rows)
    assert reasons == {}
    found = [(o.limit, o.observed) for o in outcome.outcomes[-4:]]
    assert found == [("met", 3.0), ("met", 3.0), ("not met", None), ("met", None)]
    assert outcome.num_failed_expectations == 1


KWARGS = {
    "column": "completion",
    "column_A": "num_chars",
    "column_B": "num_turns",
    "column_list": ["num_chars", "num_turns"],
    "min_value": 0,
    "max_value": 99,
    "value": 1,
    "value_set": ["1"],
    "value_pairs_set": [[4, 2]],
    "regex": "1",
    "regex_list": ["1"],
    "strftime_format": "%H",
    "json_schema": {"type": "integer"},
    "sum_total": 6,
    "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 9]]},
}


@pytest.mark.parametrize("kinds", [BY_ROW, BY_TABLE], ids=["by row", "by table"])
def test_every_type_that_is_allowed_can_be_judged(suite, kinds):
    from great_expectations.expectations.registry import get_expectation_impl

    entries = []
    for kind in sorted(kinds):
        fields = get_expectation_impl(kind).__fields__
        kwargs = {name: value for name, value in KWARGS.items() if name in fields}
        if "column" in kwargs and (kinds is BY_TABLE or kind == BETWEEN):
            kwargs["column"] = "num_chars"
        entries.append((kind, kwargs))
    _, outcome = judged(suite(*entries), answers("11"))
    assert {o.rule.type for o in outcome.outcomes} >= kinds


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        (BETWEEN, {"column": "completion", "min_value": 3}),
        (BETWEEN, {"column": "meta.age", "min_value": 3}),
        (MEAN, {"column": "meta.age", "min_value": 3}),
        ("expect_column_values_to_match_json_schema", {"column": "completion", "json_schema": {}}),
    ],
)
def test_an_error_inside_is_an_error_with_its_place_and_quotes_nothing(suite, kind, kwargs):
    rows = answers(SECRET, "a", age=[SECRET, "4"])
    with pytest.raises(DataError, match=r"expectations\[0\].*could not be evaluated") as failure:
        judged(suite((kind, kwargs)), rows)
    assert SECRET not in repr(failure.getrepr(chain=True))
    assert f"{kwargs['column']} holds str" in str(failure.value)


def test_a_subgroup_that_one_row_lacks_is_an_error_not_a_pass(suite):
    rule = (IN_SET, {"column": "meta.sex", "value_set": ["f"]})
    rows = [*answers("a", sex=["f"]), record(*CLEAN, row=1)]
    with pytest.raises(DataError, match=r"'meta.sex', which row 1 of the run does not have"):
        judged(suite(rule), rows)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"column": "num_turns"}, "min_value and max_value cannot both be None"),
        ({"column": "num_turns", "min_value": 1, "colour": 1}, "colour: extra fields"),
        ({"column": "num_turns", "min_value": 1, "mostly": 7}, "mostly"),
    ],
)
def test_arguments_that_do_not_fit_are_named(suite, kwargs, message):
    with pytest.raises(ConfigError, match=rf"expectations\[0\].*{message}"):
        RecordJudge(suite((BETWEEN, kwargs)))


def test_no_text_of_a_row_reaches_page_log_or_evidence(suite, caplog):
    caplog.set_level(logging.DEBUG)
    config = suite(
        (REGEX, {"column": "completion", "regex": "^a$"}),
        ("expect_column_values_to_be_null", {"column": "prompt"}),
        (IN_SET, {"column": "meta.name", "value_set": ["Ann"]}),
        (DISTINCT, {"column": "meta.name", "value_set": ["Ann"]}),
        (MOST_COMMON, {"column": "meta.name", "value_set": ["Ann"]}),
    )
    rows = [
        record(("user", SECRET), ("assistant", SECRET), name=SECRET),
        Record(1, "id", [], {DEFECT: "wrong_type", "_raw": SECRET, "name": SECRET}),
    ]
    judge = RecordJudge(config)
    decisions = [repr(decision) for _, decision in judge.judge(rows)]
    outcome = judge.validation()
    assert outcome.num_failed_expectations == 2
    for left in (outcome.to_html(), repr(outcome), caplog.text, *decisions):
        assert SECRET not in left
