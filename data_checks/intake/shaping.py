"""Turns a row of any accepted shape into canonical messages.

A row that does not fit keeps its place: it becomes a record with a `defect` and the raw columns in
its meta, so that validation can put it into quarantine with a reason and nothing is lost.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection
from typing import Any

from sft_core.config import Columns, SourceConfig
from sft_core.errors import DataError
from sft_core.records import PLAIN_TEXT, Message, Record, row_id

DEFECT = "_defect"
"""Meta key of the reason why a row could not be shaped: `missing_value`, `wrong_type` or
`tool_calls`."""
RAW = "_raw"
"""Meta key of the columns of such a row, as JSON text."""

_SHAPES = (
    Columns(messages="messages"),
    Columns(prompt="prompt", completion="completion"),
    Columns(prompt="instruction", completion="output"),
    Columns(prompt="question", completion="answer"),
    Columns(text="text"),
)


_CALLS = ("tool_calls", "function_call")
"""Parts of a turn that are no text."""


class _MisshapenError(ValueError):
    """Carries the reason code."""


def columns_of(source: SourceConfig, present: Collection[str]) -> Columns:
    """The column mapping of a source: the configured one, or the shape that its columns have.

    Names of columns are not quoted in messages: those of a file without a header are data.

    Raises:
        DataError: a configured column is not there, or no known shape fits.
    """
    named = source.columns
    wanted = [c for c in named.model_dump().values() if c] + list(source.subgroups)
    for column in wanted:
        if column not in present:
            near = difflib.get_close_matches(column, present, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"{source.path}: no column {column!r} among the {len(present)} found.{hint} "
                "Set ingest.sources.columns and subgroups."
            )
    if named.text or named.messages or (named.prompt and named.completion):
        return named
    if named.prompt or named.completion:
        raise DataError(
            f"{source.path}: a column mapping needs both prompt and completion, or messages, or "
            "text."
        )
    for shape in _SHAPES:
        needed = [c for c in shape.model_dump().values() if c]
        if all(column in present for column in needed) and not (shape.text and named.system):
            extra = {k: v for k, v in named.model_dump().items() if v}
            return shape.model_copy(update=extra)
    raise DataError(
        f"{source.path}: its {len(present)} columns have no known shape (messages, "
        "prompt/completion, instruction/input/output, question/answer, text). "
        "Map them with ingest.sources.columns."
    )


def shape_row(number: int, row: dict[str, Any], columns: Columns, source: SourceConfig) -> Record:
    """The canonical record of a row, or one with a defect."""
    meta = {name: _plain(row.get(name)) for name in source.subgroups}
    try:
        messages = _messages(row, columns)
    except _MisshapenError as error:
        messages = []
        meta |= {DEFECT: str(error), RAW: json.dumps(_plain(row), ensure_ascii=False)}
    return Record(number, row_id(messages, meta), messages, meta)


def _messages(row: dict[str, Any], columns: Columns) -> list[Message]:
    if columns.text:
        return [{"role": PLAIN_TEXT, "content": _text(row, columns.text)}]
    if columns.messages:
        return _turns(_value(row, columns.messages))
    messages = []
    if columns.system and row.get(columns.system):
        messages.append({"role": "system", "content": _text(row, columns.system)})
    prompt = _value(row, str(columns.prompt))
    if isinstance(prompt, list):
        messages += _turns(prompt)
    else:
        text = _text(row, str(columns.prompt))
        if columns.prompt == "instruction" and row.get("input"):
            text = f"{text}\n\n{_text(row, 'input')}"
        messages.append({"role": "user", "content": text})
    completion = _value(row, str(columns.completion))
    if isinstance(completion, list):
        return messages + _turns(completion)
    answer = _text(row, str(columns.completion))
    return [*messages, {"role": "assistant", "content": answer}]


def _value(row: dict[str, Any], column: str) -> Any:
    value = row.get(column)
    if value is None:
        raise _MisshapenError("missing_value")
    return value


def _text(row: dict[str, Any], column: str) -> str:
    value = _value(row, column)
    if not isinstance(value, str):
        raise _MisshapenError("wrong_type")
    return _encodable(value)


def _turns(value: Any) -> list[Message]:
    if not isinstance(value, list):
        raise _MisshapenError("wrong_type")
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            raise _MisshapenError("wrong_type")
        role = _text(turn, "role")
        if role == PLAIN_TEXT:
            raise _MisshapenError("wrong_type")  # a conversation must not pass as plain text
        if any(turn.get(name) for name in _CALLS):
            raise _MisshapenError("tool_calls")  # without them the answer would be another one
        turns.append({"role": role, "content": _text(turn, "content")})
    return turns


def _encodable(text: str) -> str:
    """Half of a surrogate pair has no UTF-8: it becomes U+FFFD, which validation reports."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """The value as canonical JSON can hold it; what it cannot (dates, NaN) is written as text."""
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, dict):
        return {_encodable(str(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool):
        return value
    fits = isinstance(value, int) and abs(value) < 2**53
    return value if fits or (isinstance(value, float) and math.isfinite(value)) else str(value)
