"""The model as its training began: the place for the weights of a snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sft_core.base_model import check_base, load_base
from sft_core.config import ModelConfig, TrainingConfig
from sft_core.reports import ModelRef
from sft_core.training.adapters import with_adapter


def trained_network(
    base: ModelRef, model: ModelConfig, training: TrainingConfig, *, seed: int, initial: Path
) -> Any:
    """Base in float32 with a fresh adapter, PiSSA's part taken out of it; `initial` is a folder.

    Raises:
        IntegrityError: the base differs from the one that was trained on.
        ModelError: as `load_base`.
    """
    network, _ = load_base(check_base(base), model)
    return with_adapter(network, training, model, seed, initial)
