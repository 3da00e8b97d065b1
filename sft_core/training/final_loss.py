"""The loss that training ends with, taken in a way that another process can repeat."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sft_core.errors import TuneTrailError
from sft_core.evaluation.likelihood import Likelihood, label_likelihood

MAX_ROWS = 1_000
"""First rows of the split that are scored: enough to tell one model from another."""


def final_tokens(train: Path, validation: Path | None) -> Path:
    """Token file whose first rows are scored: validation, or train where that holds no row."""
    if validation is not None and pq.ParquetFile(validation).metadata.num_rows:
        return validation
    return train


def final_loss(model: Any, tokens: Path) -> Likelihood:
    """Likelihood of the labels of the first `MAX_ROWS` rows.

    The mean is over all tokens, so that it does not depend on how rows are put into batches. Puts
    the model in eval mode.

    Raises:
        TuneTrailError: the loss is not a finite number.
    """
    batch = next(pq.ParquetFile(tokens).iter_batches(MAX_ROWS))
    found: Likelihood = label_likelihood(
        model, batch.column("input_ids").to_pylist(), batch.column("labels").to_pylist()
    )
    if not math.isfinite(found.loss):
        raise TuneTrailError(
            f"train: the loss of the trained model is {found.loss}. Lower training.learning_rate "
            "or training.max_grad_norm, or set training.bf16: false."
        )
    return found
