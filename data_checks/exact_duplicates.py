"""Rows that say the same thing: equal conversations after normalisation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from data_checks.text import normalise
from sft_core.records import Record


def content_key(record: Record) -> bytes:
    """128-bit digest of the conversation without its system prompts.

    Roles and the borders between turns are part of it, so equal prompts with different completions
    differ. Equality of digests is taken for equality of text: two different texts among 10^9 rows
    collide with probability 1e-21.
    """
    digest = hashlib.blake2b(digest_size=16)
    for message in record.messages:
        if message["role"] != "system":
            content = normalise(message["content"]).encode("utf-8", "surrogatepass")
            digest.update(f"{message['role']} {len(content)} ".encode())
            digest.update(content)
    return digest.digest()


def find_exact_duplicates(records: Iterable[Record]) -> dict[int, int]:
    """Row of each repeated conversation -> row that had it first, in the order given.

    First rows are not listed; no rows give an empty value. Memory: about 150 bytes a row.
    """
    first: dict[bytes, int] = {}
    duplicates: dict[int, int] = {}
    for record in records:
        original = first.setdefault(content_key(record), record.row)
        if original != record.row:
            duplicates[record.row] = original
    return duplicates
