from __future__ import annotations

import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sft_core.training.batches import TokenBatches

LENGTHS = st.lists(st.integers(1, 300), max_size=200)
MIXED = [(i * 37) % 290 + 10 for i in range(400)]


def batches(
    lengths: list[int], rows: int = 16, tokens: int | None = None, seed: int = 7
) -> TokenBatches:
    return TokenBatches(lengths, max_rows=rows, max_tokens=tokens, seed=seed)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 20), st.none() | st.integers(1, 900), st.integers(0, 5))
def test_every_row_once_within_the_budget(
    lengths: list[int], rows: int, tokens: int | None, epoch: int
) -> None:
    sampler = batches(lengths, rows, tokens)
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert len(found) == len(sampler)
    for batch in found:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert 1 <= len(batch) <= rows
        assert tokens is None or padded <= tokens or len(batch) == 1
    assert 0.0 <= sampler.padding_rate() < 1.0


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 20), st.none() | st.integers(1, 900))
def test_only_one_batch_could_take_another_row(
    lengths: list[int], rows: int, tokens: int | None
) -> None:
    """Of a bucket's batches all are as large as its longest row allows, but for the last bucket."""
    sampler = batches(lengths, rows, tokens)
    partial = 0
    for batch in sampler:
        # A bucket's rows are at least 0.9 of its longest, or it is a single batch.
        most = max(lengths[row] for row in batch) / 0.9
        fit = rows if tokens is None else max(1, min(rows, int(tokens / most + 1e-9)))
        partial += len(batch) < fit
    assert partial <= 1


def test_seed_and_epoch_decide_the_order() -> None:
    sampler, again = batches(MIXED), batches(MIXED)
    first = list(sampler)
    assert list(again) == first == list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert {frozenset(b) for b in second} != {frozenset(b) for b in first}
    again.set_epoch(1)
    assert list(again) == second
    assert list(batches(MIXED, seed=8)) != first


def test_order_is_shuffled_between_buckets() -> None:
    longest = [max(MIXED[row] for row in batch) for batch in batches(MIXED)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_padding_rate() -> None:
    # Two batches, of rows of 10 and 9 and of 4 and 3: 20 + 8 tokens, of which 26 are real.
    assert batches([3, 10, 4, 9], rows=2).padding_rate() == pytest.approx(1 - 26 / 28)
    assert batches([]).padding_rate() == 0.0
    assert batches([5] * 7, rows=2).padding_rate() == 0.0


def test_budget_decides_how_many_rows() -> None:
    # 100 tokens: 2 rows of 50, and of the shorter ones 16, the most.
    found = sorted(map(sorted, batches([50] * 4 + [5] * 32, rows=16, tokens=100)))
    assert sorted(map(len, found)) == [2, 2, 16, 16]
    # A row longer than the budget goes alone.
    assert sorted(batches([500, 90, 10], tokens=100)) == [[0], [1], [2]]


def test_resuming_in_the_middle_of_an_epoch() -> None:
    sampler = batches(MIXED)
    sampler.set_epoch(3)
    whole = list(sampler)
    loader = DataLoader(MIXED, batch_sampler=sampler, collate_fn=list)
    rest = list(skip_first_batches(loader, 5))
    assert rest == [[MIXED[row] for row in batch] for batch in whole[5:]]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 20), st.integers(1, 5))
def test_processes_share_the_batches(lengths: list[int], rows: int, processes: int) -> None:
    """Each batch goes to one of them, each gets as many, and a step of all is a stretch of them."""
    alone = list(batches(lengths, rows))
    shared = TokenBatches(lengths, max_rows=rows, max_tokens=None, seed=7, num_processes=processes)
    parts = [list(BatchSamplerShard(shared, processes, process)) for process in range(processes)]
    together = [batch for step in zip(*parts, strict=True) for batch in step]
    assert len(together) == len(shared) < len(alone) + processes
    assert together == alone + [[]] * (len(together) - len(alone))
