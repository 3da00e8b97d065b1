"""The canonical record, its identity, and the decisions that stages take about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

Message = dict[str, str]
"""One turn: `{"role": ..., "content": ...}`."""

PLAIN_TEXT = "text"
"""Role of the one message of a row that is no conversation: nobody asks, nobody answers."""

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Record:
    """One row on its way through the stages.

    `row` is the position among all source rows of the run and is unique; `row_id` is the SHA-256
    of the record as it was ingested and stays the same when text is redacted, so equal source rows
    share it. `cluster` names the near-duplicate cluster by the `row_id` of its first row.
    """

    row: int
    row_id: str
    messages: list[Message]
    meta: dict[str, Any] = field(default_factory=dict)
    cluster: str = ""

    @property
    def is_plain_text(self) -> bool:
        """Whether the row is a text for continued pretraining, and no conversation."""
        return [m["role"] for m in self.messages] == [PLAIN_TEXT]

    def prompt(self) -> list[Message]:
        """All turns before the last one; none in plain text."""
        return self.messages[:-1]

    def completion(self) -> str:
        """Text of the last turn, which a valid record gives to the assistant, or plain text."""
        return self.messages[-1]["content"]

    def text(self) -> str:
        """All turns but system prompts, which many rows share, joined by a newline."""
        return "\n".join(m["content"] for m in self.messages if m["role"] != "system")

    def to_json(self) -> bytes:
        """One canonical line: sorted keys, no spaces, UTF-8."""
        return orjson.dumps(
            {
                "row": self.row,
                "row_id": self.row_id,
                "messages": self.messages,
                "meta": self.meta,
                "cluster": self.cluster,
            },
            option=orjson.OPT_SORT_KEYS,
        )

    @classmethod
    def from_json(cls, line: bytes) -> Record:
        """Inverse of `to_json`."""
        return cls(**orjson.loads(line))


_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8; equal values give equal bytes. NaN is refused."""
    return _CANONICAL.encode(value).encode("utf-8", "surrogatepass")


def sha256_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def row_id(messages: list[Message], meta: dict[str, Any]) -> str:
    """Identity of a record: SHA-256 over its canonical JSON.

    Messages are strings alone, which orjson writes in the same bytes several times faster.
    """
    text = orjson.dumps(messages, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b'{"messages":%b,"meta":%b}' % (text, canonical_json(meta))).hexdigest()


Action = Literal["dropped", "redacted", "train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What one stage decided about one row.

    `reason` is a fixed code (`near_duplicate`), never free text; `evidence` names what proves it
    without quoting the record: a row, a kind of identifier, a held-out item, a similarity.
    """

    row: int
    action: Action
    reason: str
    evidence: str = ""


def dropped_rows(decisions: Iterable[Decision]) -> dict[int, Decision]:
    """The decisions that take a row out, by row."""
    return {d.row: d for d in decisions if d.action == "dropped"}
