"""What training would take, as a rehearsal measured it."""

from __future__ import annotations

from typing import Literal

from sft_core.reports import Frozen

Verdict = Literal["fits", "tight", "does not fit"]
_TIGHT = 0.8
"""Share of the memory from which it is tight: other programs and fragmentation need some."""


class Measured(Frozen):
    """One batch: forward, backward and update, as training makes them."""

    what: str
    num_rows: int
    num_tokens: int
    """Tokens that are computed, padding included."""
    seconds: float
    """Median of the timed steps."""
    peak_bytes: int


class Estimate(Frozen):
    """Time and memory of the training steps, without the held-out loss between epochs."""

    device: str
    num_steps: int
    """Updates of the weights."""
    num_batches: int
    padding_rate: float
    """Share of the computed tokens that is padding, over the sampled batches."""
    tokens_per_batch: float
    """Mean over the sampled batches of the tokens that are computed, padding included."""
    num_sampled: int
    seconds: float | None
    """None where the largest batch was not tried."""
    peak_bytes: int | None
    """None where a single row was too much."""
    available_bytes: int
    basis: str
    """What the peak was taken from."""
    measured: tuple[Measured, ...]

    @property
    def verdict(self) -> Verdict:
        """Tight above 0.8 of what is available."""
        if self.peak_bytes is None or self.peak_bytes > self.available_bytes:
            return "does not fit"
        return "tight" if self.peak_bytes > _TIGHT * self.available_bytes else "fits"
