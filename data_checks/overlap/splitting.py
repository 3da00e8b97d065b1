"""Which split a near-duplicate cluster belongs to: a function of its name and the salt alone."""

from __future__ import annotations

import hashlib
from typing import Literal

from sft_core.config import SplitConfig

_SPACE = 2**64


def split_of(cluster: str, config: SplitConfig) -> Literal["train", "validation", "test"]:
    """Split of a cluster, named by the `row_id` of its first row.

    No other row has a say, so appended data move no row, and rows of one cluster never straddle
    two splits. A row can change its split only with its cluster's name: when an earlier
    near-duplicate of it is put before it, or when a new row joins its cluster to an earlier one
    and it still stays (near-duplicates are kept, or it is the longest).
    """
    digest = hashlib.sha256(f"{config.salt}:{cluster}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / _SPACE
    if position < config.test_rate:
        return "test"
    if position < config.test_rate + config.validation_rate:
        return "validation"
    return "train"
