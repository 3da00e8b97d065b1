"""Batches by token budget: rows of like length side by side, so that little is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

_LIKE_LENGTH = 0.9
"""Rows of a bucket are at least this share of its longest; a bucket of one batch may be wider."""


class TokenBatches(Sampler[list[int]]):
    """Batches of row numbers: every row once an epoch, in an order that follows from the seed.

    A batch takes as many rows as fit into `max_tokens` once all are padded to its longest, and at
    most `max_rows`; a row that is longer than `max_tokens` goes alone. Rows are sorted by length
    and cut into buckets of whole batches. Each epoch shuffles the rows within a bucket, then all
    batches, so a batch has rows of like length, and a batch of short rows follows one of long rows.
    The number of batches is the same in each epoch, and each of `num_processes` gets as many: where
    it would not come out even, the last processes get an empty batch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        max_rows: int,
        max_tokens: int | None,
        seed: int,
        num_processes: int = 1,
    ) -> None:
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self.epoch = 0
        self._seed = seed
        self._num_processes = num_processes
        self._buckets = list(_buckets(self._lengths, max_rows, max_tokens))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, whose order comes next; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        num_batches = sum(-(-len(rows) // size) for rows, size in self._buckets)
        return num_batches + -num_batches % self._num_processes

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._of_epoch(self.epoch)
        return iter(batches + [[]] * (len(self) - len(batches)))

    def padding_rate(self) -> float:
        """Share of padding among the tokens of the first epoch's batches; 0 without a row."""
        padded = sum(len(b) * int(self._lengths[b].max()) for b in self._of_epoch(0))
        return 1.0 - int(self._lengths.sum()) / padded if padded else 0.0

    def _of_epoch(self, epoch: int) -> list[list[int]]:
        random = np.random.default_rng([self._seed, epoch])
        batches = []
        for rows, size in self._buckets:
            shuffled = random.permutation(rows).tolist()
            batches += [shuffled[i : i + size] for i in range(0, len(rows), size)]
        return [batches[place] for place in random.permutation(len(batches))]


def _buckets(
    lengths: np.ndarray, max_rows: int, max_tokens: int | None
) -> Iterator[tuple[np.ndarray, int]]:
    """Rows and rows a batch of each bucket, from the longest down; only the last can be partial."""
    order = np.argsort(-lengths, kind="stable")
    falling = -lengths[order]
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        size = max_rows
        if max_tokens is not None:
            size = max(1, min(max_rows, max_tokens // max(1, longest)))
        like = int(np.searchsorted(falling, -longest * _LIKE_LENGTH, side="right")) - start
        end = start + max(1, like // size) * size
        yield order[start:end], size
        start = end
