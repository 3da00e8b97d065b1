"""A progress bar with rows and time left, for people at a terminal; logs stay free of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def watched(items: Iterable[Item], stage: str, total: int | None = None) -> Iterator[Item]:
    """The same items; on a terminal a bar counts them and tells the time left."""
    yield from tqdm(
        items, desc=f"{stage:<14}", total=total, unit=" rows", disable=None, leave=False, delay=1
    )
