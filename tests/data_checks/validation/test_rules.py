"""A suite file that is not one is refused with the place, before any row is read."""

import json

import pytest

from data_checks.validation.rules import builtin_rules, read_suite
from sft_core.config import ValidationConfig
from sft_core.errors import ConfigError
from tests.conftest import ROOT

REGEX = "expect_column_values_to_match_regex"
MEAN = "expect_column_mean_to_be_between"
GOOD = {"type": REGEX, "kwargs": {"column": "completion", "regex": "a"}}


def entry(kind=REGEX, meta=None, **kwargs):
    return {"type": kind, "kwargs": {"column": "completion", "regex": "a"} | kwargs, "meta": meta}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("text", 'expected {"type": text'),
        ({"kwargs": {}}, 'expected {"type": text'),
        (entry(meta=[1]), 'expected {"type": text'),
        (entry("expect_column_values_to_match_regexp"), f"mean '{REGEX}'.* Allowed: expect_"),
        (entry("expect_column_values_to_be_unique"), "is not one that can be judged"),
        (entry() | {"severity": "warning"}, "severity 'warning', allowed: 'critical'"),
        (entry(row_condition="a > 1"), "Remove row_condition"),
        (entry(regex={"$PARAMETER": "p"}), "Remove regex"),
        (entry(column="answer"), "no column 'answer'.*Allowed: system, prompt.*meta.NAME"),
        (entry(column="meta."), "no column 'meta.'"),
        (entry(column=["completion"]), "expected names of columns, each once"),
        (entry(column_list=["completion"]), "expected names of columns, each once"),
        (entry(MEAN), "no column 'completion'.*all rows at once.*Allowed: has_missing"),
        (entry(regex="(a"), "not a regular expression"),
        (entry(regex_list=["a", 3]), "not a regular expression"),
        (entry(meta={"reason": "Jane Roe"}), "meta.reason must be a fixed code"),
    ],
)  # fmt: skip
def test_a_bad_rule_is_named_with_its_place(tmp_path, bad, message):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"name": "own", "expectations": [GOOD, bad]}))
    with pytest.raises(ConfigError, match=rf"own.json: expectations\[1\]: .*{message}"):
        read_suite(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", 'no list "expectations"'),
        (b'{"expectations": []}', "at least one entry"),
        (None, "No such file.* Check validation.suite"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path, content, message):
    path = tmp_path / "own.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_suite(path)


def test_what_great_expectations_writes_is_read(tmp_path):
    import great_expectations as gx
    import great_expectations.expectations as gxe

    written = gx.ExpectationSuite(
        name="own",
        expectations=[
            gxe.ExpectColumnValuesToMatchRegex(column="completion", regex="a", mostly=0.9),
            gxe.ExpectTableRowCountToBeBetween(min_value=1, meta={"reason": "too_few"}),
        ],
    )
    path = tmp_path / "own.json"
    path.write_text(json.dumps(written.to_json_dict()))
    first, second = read_suite(path)
    assert (first.columns, first.mostly, first.by_row) == (("completion",), 0.9, True)
    assert first.reason == f"suite:{REGEX}:completion"
    assert (second.columns, second.reason, second.by_row) == ((), "too_few", False)


def test_reasons_of_the_bundled_rules_are_unique():
    reasons = [rule.reason for rule in builtin_rules(ValidationConfig())]
    assert len(set(reasons)) == len(reasons) == 10


def test_the_how_to_names_every_column_and_its_example_is_a_suite(tmp_path):
    from data_checks.validation.features import TEXT_COLUMNS, Features

    page = (ROOT / "docs/expectations.md").read_text()
    for column in (*TEXT_COLUMNS, *Features._fields):
        assert f"`{column}`" in page
    path = tmp_path / "suite.json"
    path.write_text(page.split("```json\n")[1].split("```")[0])
    assert len(read_suite(path)) >= 3
