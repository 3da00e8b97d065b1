"""What training will take, by doing a little of it: real steps of the real trainer, timed.

One and two rows as long as the longest come first. What a row adds to the peak tells whether a
batch of them can fit; only then the largest batch itself is tried, so that a rehearsal on a machine
that is too small says so instead of being killed.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import numpy as np
import torch

from sft_core.training.estimate import Estimate, Measured
from sft_core.training.memory import available_bytes, peak_bytes, reset_peak

_STEPS = 4
"""Steps of each batch; the first one warms up and is not timed."""
_MAX_SECONDS = 20.0
"""After so long no further step of a batch is made."""
_SAMPLE = 500
"""Most batches that are put together to see their padding."""


def rehearse(trainer: Any, lengths: list[int], num_processes: int = 1) -> Estimate:
    """Estimate what `trainer.train()` takes; `lengths` are the tokens of each row.

    Where it stands for one of several processes, it accumulates what they share, and each of them
    takes its part of the batches, and without a GPU of the memory.

    The trainer's weights are changed: throw it away. With accumulated gradients each batch counts
    an update, which is slightly too much.
    """
    loader = trainer.get_train_dataloader()
    plan = [list(rows) for rows in loader.batch_sampler]
    largest = max(plan, key=lambda rows: len(rows) * max(lengths[i] for i in rows))
    largest.sort(key=lambda i: -lengths[i])
    sample = plan[:: math.ceil(len(plan) / _SAMPLE)]
    sizes = [int(_collate(loader, rows)["input_ids"].numel()) for rows in sample]
    typical = sample[sizes.index(statistics.median_high(sizes))]
    trainer.create_optimizer()
    model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
    available = available_bytes() // (1 if torch.cuda.is_available() else num_processes)
    measured: list[Measured] = []
    tries = {
        "one longest row": largest[:1],
        "two longest rows": largest[:2],
        "typical batch": typical,
        "largest batch": largest,
    }
    peak: int | None = None
    basis = ""
    for what, rows in tries.items():
        try:
            measured.append(_measure(what, trainer, loader, model, optimizer, rows))
        except torch.cuda.OutOfMemoryError:
            peak = available + 1 if measured else None
            basis = f"memory ran out on: {what}"
            break
        peak = _peak_of(measured, len(largest))
        basis = f"extrapolated to the largest batch from: {what}"
        if peak > available:
            break
    else:
        basis = "measured on the largest batch"
    *_, num_steps = trainer.set_initial_training_values(trainer.args, loader)
    updates = math.ceil(len(loader) / trainer.args.gradient_accumulation_steps)
    num_batches = math.ceil(num_steps * len(loader) / updates / num_processes)
    whole = len(measured) == len(tries)
    return Estimate(
        device=_device(trainer),
        num_steps=num_steps,
        num_batches=num_batches,
        padding_rate=1.0 - sum(lengths[i] for rows in sample for i in rows) / sum(sizes),
        tokens_per_batch=statistics.mean(sizes),
        num_sampled=len(sample),
        seconds=_mean_seconds(measured, sizes) * num_batches if whole else None,
        peak_bytes=peak,
        available_bytes=available,
        basis=basis,
        measured=tuple(measured),
    )


def _peak_of(measured: list[Measured], num_rows: int) -> int:
    """Peak of the largest batch, of so many rows, by what was measured up to here."""
    peak = max(found.peak_bytes for found in measured)
    if len(measured) in (2, 3):  # beyond two rows each adds what the second one did
        one, two = measured[:2]
        peak = max(peak, two.peak_bytes + (two.peak_bytes - one.peak_bytes) * (num_rows - 2))
    return peak


def _mean_seconds(measured: list[Measured], sizes: list[int]) -> float:
    """Of a batch: each size between those that were measured takes a time between theirs."""
    points = np.array(sorted({found.num_tokens: found.seconds for found in measured}.items()))
    return float(np.interp(np.array(sizes), points[:, 0], points[:, 1]).mean())


def _collate(loader: Any, rows: list[int]) -> Any:
    return loader.collate_fn([loader.dataset[i] for i in rows])


def _measure(
    what: str, trainer: Any, loader: Any, model: Any, optimizer: Any, rows: list[int]
) -> Measured:
    seconds: list[float] = []
    num_tokens = 0
    reset_peak()
    while len(seconds) < _STEPS and sum(seconds) < _MAX_SECONDS:
        one = iter([_collate(loader, rows)])
        (batch,), num_labels = trainer.get_batch_samples(one, 1, trainer.args.device)
        num_tokens = int(batch["input_ids"].numel())
        started = time.perf_counter()
        trainer.training_step(model, batch, num_labels)
        trainer.accelerator.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        optimizer.step()
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return Measured(
        what=what,
        num_rows=len(rows),
        num_tokens=num_tokens,
        seconds=statistics.median(seconds[1:] or seconds),
        peak_bytes=peak_bytes(),
    )


def _device(trainer: Any) -> str:
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(trainer.args.device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
