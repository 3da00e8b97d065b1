"""Rows that say the same thing: equal conversations after normalisation.

Roles and the borders between turns are part of a conversation, system prompts are not, so equal
prompts with different completions differ. Conversations are compared by a 128-bit digest: two
different ones among 10^9 rows collide with probability 1e-21.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from data_checks.text import Ends, batches, compiled, normalise
from sft_core.records import Record

Bytes = NDArray[np.uint8]

_BORDER = b"\xff"
"""Between roles and turns; no byte of UTF-8."""


def find_exact_duplicates(records: Iterable[Record]) -> dict[int, int]:
    """Row of each repeated conversation -> earliest row that has it, whatever the order.

    Earliest rows are not listed; no rows give an empty value. Memory: 24 bytes a row, three times
    as much for a moment at the end, and 150 bytes a duplicate.
    """
    rows = [np.empty(0, np.int64)]
    digests = bytearray()
    for batch_rows, conversations in batches((r.row, _conversation(r)) for r in records):
        rows.append(np.array(batch_rows, np.int64))
        for conversation in _squeezed(conversations):
            digests += hashlib.blake2b(conversation, digest_size=16).digest()
    numbers = np.concatenate(rows)
    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    order = np.lexsort((numbers, halves[:, 0], halves[:, 1]))
    is_first = np.ones(order.size, np.bool_)
    is_first[1:] = (halves[order][1:] != halves[order][:-1]).any(axis=1)
    firsts = numbers[order[is_first]][np.cumsum(is_first) - 1]
    repeats = zip(numbers[order][~is_first].tolist(), firsts[~is_first].tolist(), strict=True)
    return dict(sorted(repeats))


def _conversation(record: Record) -> bytes:
    """Roles and texts, normal but for white space in ASCII text, which `_squeeze` sees to."""
    parts: list[bytes] = []
    for message in record.messages:
        if message["role"] != "system":
            content = message["content"]
            folded = content.lower() if content.isascii() else normalise(content)
            parts += (message["role"].encode(), folded.encode("utf-8", "surrogatepass"))
    return _BORDER.join(parts)


def _squeezed(conversations: list[bytes]) -> Iterator[memoryview]:
    sizes = np.fromiter(map(len, conversations), np.int64, len(conversations))
    buffer = np.frombuffer(b"".join(conversations) or b" ", np.uint8)
    kept, ends = _squeeze(buffer, np.cumsum(sizes))
    view = kept.data
    begin = 0
    for end in ends.tolist():
        yield view[begin:end]
        begin = end


@compiled
def _squeeze(buffer: Bytes, ends: Ends) -> tuple[Bytes, Ends]:
    """Runs of ASCII white space as one space, and none beside a border or at either end."""
    kept = np.empty_like(buffer)
    kept_ends = np.empty_like(ends)
    count = 0
    position = 0
    for text in range(ends.size):
        pending = False
        at_border = True
        while position < ends[text]:
            byte = buffer[position]
            position += 1
            if 9 <= byte <= 13 or 28 <= byte <= 32:
                pending = True
                continue
            if pending and not at_border and byte != 0xFF:
                kept[count] = 32
                count += 1
            kept[count] = byte
            count += 1
            pending = False
            at_border = byte == 0xFF
        kept_ends[text] = count
    return kept[:count].copy(), kept_ends
