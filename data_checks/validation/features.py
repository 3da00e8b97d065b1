"""Flattens a chat to one line of numbers that Great Expectations can judge."""

from __future__ import annotations

import re
from typing import NamedTuple

from data_checks.intake.shaping import DEFECT
from sft_core.records import PLAIN_TEXT, Message, Record

_CONTROL = bytes([*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
"""All ASCII control characters but tab, line feed and carriage return."""
# U+FFFD, and UTF-8 read as Latin-1 or Windows-1252: a lead byte's letter before a continuation.
_DAMAGE = re.compile(
    "\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u024f\u2000-\u2122]"
)


TEXT_COLUMNS = ("system", "prompt", "completion")
"""Columns of text that a suite may judge."""


class Features(NamedTuple):
    """One row of the feature frame. Every column is a number and none quotes the record."""

    has_missing_value: int
    has_wrong_type: int
    has_tool_calls: int
    has_invalid_roles: int
    num_turns: int
    shortest_message_chars: int
    completion_chars: int
    num_chars: int
    num_control_characters: int
    num_damaged_characters: int


def features_of(record: Record) -> Features:
    """Features of a record; a defective one has lengths of 0."""
    defect = record.meta.get(DEFECT)
    lengths = [len(m["content"].strip()) for m in record.messages]
    text = "\n".join([m["content"] for m in record.messages])
    encoded = text.encode()
    return Features(
        has_missing_value=int(defect == "missing_value"),
        has_wrong_type=int(defect == "wrong_type"),
        has_tool_calls=int(defect == "tool_calls"),
        has_invalid_roles=int(not defect and not roles_are_valid(record.messages)),
        num_turns=len(record.messages),
        shortest_message_chars=min(lengths, default=0),
        completion_chars=lengths[-1] if lengths else 0,
        num_chars=len(text),
        # In UTF-8 a control character is one byte, and no other character holds that byte.
        num_control_characters=len(encoded) - len(encoded.translate(None, _CONTROL)),
        num_damaged_characters=0 if text.isascii() else len(_DAMAGE.findall(text)),
    )


def text_of(record: Record, column: str) -> str | None:
    """A part of the record's text; None where it has no such part.

    `system` is the system prompt, `completion` the last turn, `prompt` all turns between them,
    joined by a newline.
    """
    system = [m["content"] for m in record.messages if m["role"] == "system"]
    turns = [m["content"] for m in record.messages if m["role"] != "system"]
    part = {"system": system, "prompt": turns[:-1], "completion": turns[-1:]}[column]
    return "\n".join(part) if part else None


def roles_are_valid(messages: list[Message]) -> bool:
    """An optional system turn, then user and assistant in turn, the assistant last; or one plain
    text and nothing else."""
    roles = [m["role"] for m in messages]
    if roles == [PLAIN_TEXT]:
        return True
    if roles[:1] == ["system"]:
        roles = roles[1:]
    return bool(roles) and roles == ["user", "assistant"] * (len(roles) // 2)
