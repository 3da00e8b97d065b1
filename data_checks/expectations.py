"""The suite that judges rows: Great Expectations over the feature frame.

The only module that imports great_expectations. Its own data docs load assets from the net and
quote failing values; the frame holds numbers only, and the report is rendered here from the
results.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import jinja2
import pandas as pd

from data_checks.features import Features
from sft_core.config import ValidationConfig
from sft_core.errors import DataError
from sft_core.records import Decision

logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Expectation:
    """One expectation's outcome, without any value of the data."""

    name: str
    column: str
    reason: str
    num_failed: int
    failed_rows: tuple[int, ...]


@dataclass(frozen=True)
class Validation:
    """Outcome of the suite: the first broken expectation of a row gives its reason."""

    num_rows: int
    expectations: tuple[Expectation, ...]

    def decisions(self) -> list[Decision]:
        """One drop a failing row, by row."""
        reasons: dict[int, list[str]] = {}
        for expectation in self.expectations:
            for row in expectation.failed_rows:
                reasons.setdefault(row, []).append(expectation.reason)
        return [
            Decision(row, "dropped", found[0], " ".join(found))
            for row, found in sorted(reasons.items())
        ]

    def to_html(self) -> str:
        """A self-contained page: no record text, nothing from the net."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True
        )
        return environment.get_template("validation.html").render(validation=self)


def _suite(config: ValidationConfig) -> list[tuple[str, Any]]:
    def between(column: str, low: int | None, high: int | None) -> Any:
        return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)

    return [
        ("missing_value", between("has_missing_value", None, 0)),
        ("wrong_type", between("has_wrong_type", None, 0)),
        ("invalid_roles", between("has_invalid_roles", None, 0)),
        ("too_many_turns", between("num_turns", None, config.max_turns)),
        ("empty_text", between("shortest_message_chars", 1, None)),
        ("short_completion", between("completion_chars", config.min_completion_chars, None)),
        ("huge_text", between("num_chars", None, config.max_chars)),
        ("control_characters", between("num_control_characters", None, 0)),
        ("encoding_damage", between("num_damaged_characters", None, 0)),
    ]


def validate_features(frame: pd.DataFrame, config: ValidationConfig) -> Validation:
    """Judge a frame with one line a record (the columns of `Features`).

    Raises:
        DataError: the frame is empty, lacks a column, or an expectation could not be evaluated;
            none of these counts as a pass.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = (
        context.data_sources.add_pandas("features")
        .add_dataframe_asset("frame")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": frame})
    )
    suite = gx.ExpectationSuite(name="records")
    whole = [
        ("row_count", gxe.ExpectTableRowCountToBeBetween(min_value=1)),
        ("columns", gxe.ExpectTableColumnsToMatchSet(column_set=list(Features.__annotations__))),
    ]
    checks = _suite(config)
    for reason, expectation in whole + checks:
        expectation.meta = {"reason": reason}
        suite.add_expectation(expectation)
    outcome = batch.validate(
        suite,
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["row"],
            "return_unexpected_index_query": False,
        },
    )
    results = {r.expectation_config.meta["reason"]: r for r in outcome.results}
    for reason, _ in whole:
        if not results[reason].success:
            raise DataError(
                f"validate: the feature frame fails {reason}: it has {len(frame)} rows and "
                f"{len(frame.columns)} columns of {len(Features.__annotations__)}."
            )
    found = []
    for reason, _ in checks:
        result = results[reason]
        info = result.exception_info or {}
        if info.get("raised_exception") or "unexpected_count" not in result.result:
            raise DataError(
                f"validate: expectation {result.expectation_config.type} could not be evaluated."
            )
        found.append(_expectation(reason, result))
    table = [
        Expectation(results[reason].expectation_config.type, "(all)", reason, 0, ())
        for reason, _ in whole
    ]
    return Validation(len(frame), (*table, *found))


def _expectation(reason: str, result: Any) -> Expectation:
    rows = [int(entry["row"]) for entry in result.result.get("unexpected_index_list") or []]
    return Expectation(
        name=result.expectation_config.type,
        column=result.expectation_config.kwargs["column"],
        reason=reason,
        num_failed=int(result.result["unexpected_count"]),
        failed_rows=tuple(sorted(rows)),
    )
