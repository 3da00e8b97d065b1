"""Judges rows by rules with Great Expectations, a chunk at a time, so that memory stays flat.

The only module that imports great_expectations. Its results and its data docs quote failing
values, and its exceptions can: what leaves this module is row numbers, counts and codes.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import great_expectations as gx
import jinja2
import pandas as pd
from great_expectations.compatibility import pydantic
from great_expectations.expectations.registry import get_expectation_impl

from data_checks.validation.features import TEXT_COLUMNS, Features, features_of, text_of
from data_checks.validation.rules import META, Rule, builtin_rules, read_suite
from sft_core.config import ValidationConfig
from sft_core.errors import ConfigError, DataError
from sft_core.records import Decision, Record

for _name in ("great_expectations", "great_expectations.data_context.types.base"):
    logging.getLogger(_name).setLevel(logging.WARNING)
_TEMPLATES = Path(__file__).parent / "templates"
_CHUNK_ROWS = 50_000
_FORMAT = {"result_format": "COMPLETE", "return_unexpected_index_query": False}


@dataclass(frozen=True)
class Outcome:
    """What came of one rule over all rows, without any value of the data."""

    rule: Rule
    num_judged: int
    """Rows that it looked at; it passes over rows whose value is empty."""
    num_failed: int
    """Rows that are taken out for it."""
    limit: Literal["none", "met", "not met"]
    """Of a rule about all rows, or of the share that `mostly` asks for."""
    observed: float | None = None
    """Number found by a rule about all rows; None where it could be a value of a row."""


@dataclass(frozen=True)
class Validation:
    """Outcome of all rules."""

    num_rows: int
    outcomes: tuple[Outcome, ...]

    @property
    def num_failed_expectations(self) -> int:
        """Rules whose limit is not met; taking rows out is not a failure of the rule."""
        return sum(outcome.limit == "not met" for outcome in self.outcomes)

    def to_html(self) -> str:
        """A self-contained page: no record text, nothing from the net."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True
        )
        return environment.get_template("validation.html").render(validation=self)


class RecordJudge:
    """Judges records by the bundled rules and the user's own.

    Raises:
        ConfigError: the user's suite is not one; the message names the place.
    """

    def __init__(self, config: ValidationConfig) -> None:
        own = read_suite(Path(config.suite)) if config.suite else []
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("records").add_dataframe_asset("frame")
        self._batches = asset.add_batch_definition_whole_dataframe("rows")
        self._by_row = [rule for rule in builtin_rules(config) + own if rule.by_row]
        self._by_table = [rule for rule in own if not rule.by_row]
        self._row_suite = _suite(self._by_row)
        self._table_suite = _suite(self._by_table)
        named = {column for rule in own for column in rule.columns}
        self._columns = sorted(named - {*Features._fields})
        self._kept = sorted({column for rule in self._by_table for column in rule.columns})
        self._parts: list[pd.DataFrame] = []
        self._num_rows = 0
        self._judged: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()

    def judge(self, records: Iterable[Record]) -> Iterator[tuple[Record, Decision | None]]:
        """Every record in order, with a drop where it fails a rule; the first rule gives the
        reason and all are evidence.

        Raises:
            DataError: a rule could not be evaluated or names a subgroup that a record lacks;
                neither counts as a pass.
        """
        records = iter(records)
        while chunk := list(islice(records, _CHUNK_ROWS)):
            frame = self._frame(chunk)
            self._num_rows += len(chunk)
            if self._by_table:
                self._parts.append(frame[self._kept])
            reasons = self._reasons(frame)
            for record in chunk:
                found = reasons.get(record.row)
                yield (
                    record,
                    Decision(record.row, "dropped", found[0], " ".join(found)) if found else None,
                )

    def validation(self) -> Validation:
        """The outcome over all records that were judged.

        Raises:
            DataError: there were none, or a rule about all rows could not be evaluated.
        """
        if not self._num_rows:
            raise DataError("validate: no rows to judge. Check what the stages before left.")
        outcomes = [
            Outcome(rule, judged, failed, _limit(rule, judged, failed))
            for n, rule in enumerate(self._by_row)
            for judged, failed in [(self._judged[n], self._failed[n])]
        ]
        if self._by_table:
            # Subgroups that are numbers throughout become numbers.
            frame = pd.concat(self._parts).infer_objects()
            results = self._results(self._table_suite, self._by_table, frame)
            for rule, result in zip(self._by_table, results, strict=True):
                outcomes.append(
                    Outcome(
                        rule=rule,
                        num_judged=self._num_rows,
                        num_failed=0,
                        limit="met" if result.success else "not met",
                        observed=_observed(rule, result),
                    )
                )
        return Validation(self._num_rows, tuple(outcomes))

    def _frame(self, records: list[Record]) -> pd.DataFrame:
        """The columns that rules name, a line a record, by row number."""
        frame = pd.DataFrame(
            [features_of(record) for record in records], index=[record.row for record in records]
        )
        for column in self._columns:
            values = [_value(record, column) for record in records]
            frame[column] = pd.Series(values, index=frame.index, dtype=object)
        return frame

    def _reasons(self, frame: pd.DataFrame) -> dict[int, list[str]]:
        """Codes of the rules that a row fails, by row."""
        reasons: dict[int, list[str]] = {}
        results = self._results(self._row_suite, self._by_row, frame)
        for n, (rule, result) in enumerate(zip(self._by_row, results, strict=True)):
            found = result.result
            rows = found.get("unexpected_index_list") or []
            if len(rows) != found["unexpected_count"]:
                raise _not_evaluated(rule, frame)
            self._failed[n] += len(rows)
            self._judged[n] += found["element_count"] - found.get("missing_count", 0)
            for row in rows:
                codes = reasons.setdefault(int(row), [])
                if rule.reason not in codes:
                    codes.append(rule.reason)
        return reasons

    def _results(self, suite: Any, rules: list[Rule], frame: pd.DataFrame) -> list[Any]:
        """Results in the order of the rules, each of which was evaluated."""
        batch = self._batches.get_batch({"dataframe": frame})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This pattern .* has match groups", UserWarning)
            results = batch.validate(suite, result_format=_FORMAT).results
        ordered = sorted(results, key=lambda result: result.expectation_config.meta["rule"])
        for rule, result in zip(rules, ordered, strict=True):
            key = "unexpected_count" if rule.by_row else "observed_value"
            if key not in result.result or _raised(result.exception_info):
                raise _not_evaluated(rule, frame)
        return ordered


def _suite(rules: list[Rule]) -> Any:
    expectations = []
    for n, rule in enumerate(rules):
        try:
            expectation = get_expectation_impl(rule.type)(**rule.kwargs, meta={"rule": n})
        except pydantic.ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"{rule.place}: {rule.type}: {wrong}.") from error
        expectations.append(expectation)
    return gx.ExpectationSuite(name="records", expectations=expectations)


def _value(record: Record, column: str) -> Any:
    if column in TEXT_COLUMNS:
        return text_of(record, column)
    name = column.removeprefix(META)
    if name not in record.meta:
        raise DataError(
            f"validate: validation.suite judges {column!r}, which row {record.row} of the run does "
            f"not have. List {name!r} in ingest.sources.subgroups of every source."
        )
    return record.meta[name]


def _limit(rule: Rule, judged: int, failed: int) -> Literal["none", "met", "not met"]:
    if rule.mostly is None:
        return "none"
    share = (judged - failed) / judged if judged else 1.0
    return "met" if share >= rule.mostly else "not met"


def _observed(rule: Rule, result: Any) -> float | None:
    value = result.result["observed_value"]
    shown = all(column in Features._fields for column in rule.columns)
    return float(value) if shown and isinstance(value, int | float) else None


def _raised(info: dict[str, Any] | None) -> bool:
    """Whether an exception was caught; the record of one is plain, or one a metric."""
    records = [info or {}, *(value for value in (info or {}).values() if isinstance(value, dict))]
    return any(record.get("raised_exception") for record in records)


def _not_evaluated(rule: Rule, frame: pd.DataFrame) -> DataError:
    """Tells types, not the caught message: that one can quote a value."""
    types = "; ".join(
        f"{column} holds {', '.join(sorted({type(value).__name__ for value in frame[column]}))}"
        for column in rule.columns
    )
    return DataError(
        f"validate: {rule.place}: {rule.type} could not be evaluated on rows {frame.index[0]} to "
        f"{frame.index[-1]} ({types}). Compare text with text and numbers with numbers."
    )
