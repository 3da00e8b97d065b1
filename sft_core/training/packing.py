"""Rows end to end in one sequence, and whether they see each other there."""

from __future__ import annotations

from typing import Any

import torch

from sft_core.errors import ConfigError

_LENGTHS = (11, 13)
"""Tokens of the two rows that are tried."""
_TOLERANCE = {torch.float32: 1e-4}
_TOLERANCE_IN_HALF = 2e-2
"""Largest difference that is rounding, as a share of the largest logit."""


@torch.no_grad()
def check_packing(model: Any) -> None:
    """Try whether two rows in one sequence get the logits that each gets alone.

    Positions that begin anew are all that marks a row: transformers makes the attention mask of
    them, and a model that takes its positions from elsewhere (Bloom) lets rows see each other.

    Raises:
        ConfigError: they see each other, or the model does not continue its input (T5).
    """
    if model.config.is_encoder_decoder:
        raise ConfigError(
            "training.packing: a sequence-to-sequence model reads each row by itself. Set it to "
            "false."
        )
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(sum(_LENGTHS), device=device) % model.config.get_text_config().vocab_size
    rows = ids.split(_LENGTHS)
    positions = torch.cat([torch.arange(length, device=device) for length in _LENGTHS])
    alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    try:
        packed = model(input_ids=ids[None], position_ids=positions[None], use_cache=False).logits[0]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "training.packing: this model takes no position_ids, which keep rows apart. Set it to "
            "false."
        ) from error
    difference = float((packed - alone).abs().max() / alone.abs().max())
    allowed = _TOLERANCE.get(alone.dtype, _TOLERANCE_IN_HALF)
    if not difference <= allowed:
        raise ConfigError(
            "training.packing: rows in one sequence see each other in this model: logits differ by "
            f"{difference:.2g} of the largest from those of the row alone, rounding allows "
            f"{allowed:g}. Set it to false."
        )
