"""What rows must meet: the suite that is always judged, and the user's own from a JSON file.

The file is what Great Expectations 1 writes for an ExpectationSuite. It is checked here as far as
that is possible before a row is read.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_checks.validation.features import TEXT_COLUMNS, Features
from sft_core.config import ValidationConfig
from sft_core.errors import ConfigError

META = "meta."
"""Prefix of the columns that hold subgroups: `meta.sex`."""

BY_ROW = frozenset(
    {
        "expect_column_pair_values_a_to_be_greater_than_b",
        "expect_column_pair_values_to_be_equal",
        "expect_column_pair_values_to_be_in_set",
        "expect_column_value_lengths_to_be_between",
        "expect_column_value_lengths_to_equal",
        "expect_column_values_to_be_between",
        "expect_column_values_to_be_dateutil_parseable",
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_be_json_parseable",
        "expect_column_values_to_be_null",
        "expect_column_values_to_match_json_schema",
        "expect_column_values_to_match_regex",
        "expect_column_values_to_match_regex_list",
        "expect_column_values_to_match_strftime_format",
        "expect_column_values_to_not_be_in_set",
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_not_match_regex",
        "expect_column_values_to_not_match_regex_list",
        "expect_multicolumn_sum_to_equal",
        "expect_multicolumn_values_to_be_equal",
        "expect_select_column_values_to_be_unique_within_record",
    }
)
"""Expectations that look at one row at a time, so that each failing row can be taken out."""
BY_TABLE = frozenset(
    {
        "expect_column_distinct_values_to_be_in_set",
        "expect_column_distinct_values_to_contain_set",
        "expect_column_distinct_values_to_equal_set",
        "expect_column_max_to_be_between",
        "expect_column_mean_to_be_between",
        "expect_column_median_to_be_between",
        "expect_column_min_to_be_between",
        "expect_column_most_common_value_to_be_in_set",
        "expect_column_proportion_of_non_null_values_to_be_between",
        "expect_column_proportion_of_unique_values_to_be_between",
        "expect_column_quantile_values_to_be_between",
        "expect_column_stdev_to_be_between",
        "expect_column_sum_to_be_between",
        "expect_column_unique_value_count_to_be_between",
        "expect_table_row_count_to_be_between",
        "expect_table_row_count_to_equal",
    }
)
"""Expectations about all rows at once: they can fail, but no single row is to blame."""
_REFUSED_KWARGS = ("row_condition", "condition_parser")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Rule:
    """One expectation, before Great Expectations has seen it."""

    type: str
    kwargs: dict[str, Any]
    columns: tuple[str, ...]
    reason: str
    """Code that a failing row gets in the ledger."""
    place: str
    """Where it stands, for error messages."""

    @property
    def by_row(self) -> bool:
        """Whether it judges each row by itself."""
        return self.type in BY_ROW

    @property
    def mostly(self) -> float | None:
        """Least share of rows that must pass; None where any number may fail."""
        return self.kwargs.get("mostly")


def builtin_rules(config: ValidationConfig) -> list[Rule]:
    """What every row must meet to be trained on; the order decides which reason a row gets."""
    return [
        _between("missing_value", "has_missing_value", None, 0),
        _between("wrong_type", "has_wrong_type", None, 0),
        _between("tool_calls", "has_tool_calls", None, 0),
        _between("invalid_roles", "has_invalid_roles", None, 0),
        _between("too_many_turns", "num_turns", None, config.max_turns),
        _between("empty_text", "shortest_message_chars", 1, None),
        _between("short_completion", "completion_chars", config.min_completion_chars, None),
        _between("huge_text", "num_chars", None, config.max_chars),
        _between("control_characters", "num_control_characters", None, 0),
        _between("encoding_damage", "num_damaged_characters", None, 0),
    ]


def _between(reason: str, column: str, low: int | None, high: int | None) -> Rule:
    kwargs = {"column": column, "min_value": low, "max_value": high}
    return Rule("expect_column_values_to_be_between", kwargs, (column,), reason, "built in")


def read_suite(path: Path) -> list[Rule]:
    """The rules of a suite file, in its order.

    Raises:
        ConfigError: the file is missing or is not a suite, or a rule has an unknown type, an
            unknown column or a broken pattern; the message names the place and what is allowed.
    """
    try:
        suite = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Check validation.suite.") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise ConfigError(f"{path}: not JSON ({error}). Check validation.suite.") from error
    found = suite.get("expectations") if isinstance(suite, dict) else None
    if not isinstance(found, list) or not found:
        raise ConfigError(
            f'{path}: no list "expectations" with at least one entry. Expected the JSON of an '
            "ExpectationSuite as Great Expectations 1 writes it."
        )
    return [_rule(entry, f"{path}: expectations[{n}]") for n, entry in enumerate(found)]


def _rule(entry: Any, place: str) -> Rule:
    if not (
        isinstance(entry, dict)
        and isinstance(entry.get("type"), str)
        and isinstance(entry.get("kwargs"), dict)
        and isinstance(meta := entry.get("meta") or {}, dict)
    ):
        raise ConfigError(f'{place}: expected {{"type": text, "kwargs": object, "meta": object}}.')
    kind, kwargs = entry["type"], entry["kwargs"]
    _check_type(kind, place)
    if entry.get("severity", "critical") != "critical":
        raise ConfigError(
            f"{place}: severity {entry['severity']!r}, allowed: 'critical'. Rows that fail are "
            "taken out; remove the entry to let them pass."
        )
    for name, value in kwargs.items():
        if name in _REFUSED_KWARGS or (isinstance(value, dict) and "$PARAMETER" in value):
            raise ConfigError(f"{place}: conditions and parameters are not read. Remove {name}.")
    columns = _columns(kwargs, place)
    _check_columns(columns, kind in BY_ROW, place)
    _check_patterns(kwargs, place)
    reason = meta.get("reason", f"suite:{kind}:{'+'.join(columns) or 'rows'}")
    if "reason" in meta and not (isinstance(reason, str) and _CODE.fullmatch(reason)):
        raise ConfigError(
            f"{place}: meta.reason must be a fixed code: lower-case letters, digits and "
            "underscores, at most 64, such as not_a_triage_level."
        )
    return Rule(kind, kwargs, columns, reason, place)


def _check_type(kind: str, place: str) -> None:
    allowed = sorted(BY_ROW | BY_TABLE)
    if kind not in allowed:
        near = difflib.get_close_matches(kind, allowed, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{place}: type {kind!r} is not one that can be judged here.{hint} "
            f"Allowed: {', '.join(allowed)}."
        )


def _columns(kwargs: dict[str, Any], place: str) -> tuple[str, ...]:
    """The columns that a rule names; none for one about the number of rows."""
    named = [kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs]
    listed = kwargs.get("column_list", [])
    columns = [*named, *listed] if isinstance(listed, list) else [*named, listed]
    if not all(isinstance(column, str) for column in columns) or len({*columns}) < len(columns):
        raise ConfigError(f"{place}: expected names of columns, each once.")
    return tuple(columns)


def _check_columns(columns: Iterable[str], by_row: bool, place: str) -> None:
    text = TEXT_COLUMNS if by_row else ()
    for column in columns:
        if column in (*Features._fields, *text) or column.removeprefix(META) not in ("", column):
            continue
        why = " That type judges all rows at once, which needs numbers or subgroups."
        raise ConfigError(
            f"{place}: no column {column!r} to judge.{'' if by_row else why} Allowed: "
            f"{', '.join((*text, *Features._fields))}, and {META}NAME for a subgroup."
        )


def _check_patterns(kwargs: dict[str, Any], place: str) -> None:
    listed = kwargs.get("regex_list", [])
    for pattern in [kwargs.get("regex", ""), *(listed if isinstance(listed, list) else [listed])]:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigError(f"{place}: not a regular expression ({error}).") from error
