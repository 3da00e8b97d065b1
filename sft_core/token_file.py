"""Tokenised examples on disk: a Parquet file written and read in batches, and its counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from sft_core.layout import Example

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS_SCHEMA = pa.schema(
    {"row": pa.int64(), "input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())}
)
_BATCH_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """What a data set looks like to the model; token counts are taken after the cut."""

    num_rows: int = 0
    """Rows that the examples are of: a long text, or a conversation whose later prompts read
    earlier answers in other tokens, gives several."""
    num_examples: int = 0
    num_truncated: int = 0
    num_cut_tokens: int = 0
    num_tokens: int = 0
    num_trained_tokens: int = 0
    longest_tokens: int = 0
    """Longest row before the cut."""

    def add(self, examples: Sequence[Example], num_rows: int) -> TokenCounts:
        """The counts with more examples, of so many more rows."""
        lengths = [example.num_tokens for example in examples]
        cuts = [example.num_cut for example in examples]
        longest = (length + cut for length, cut in zip(lengths, cuts, strict=True))
        return TokenCounts(
            self.num_rows + num_rows,
            self.num_examples + len(examples),
            self.num_truncated + sum(cut > 0 for cut in cuts),
            self.num_cut_tokens + sum(cuts),
            self.num_tokens + sum(lengths),
            self.num_trained_tokens + sum(example.num_trained for example in examples),
            max(self.longest_tokens, *longest),
        )

    def metrics(self) -> dict[str, float]:
        """All counts, and the share of rows that were cut (0 of 0 rows is 0)."""
        return {
            **{name: float(value) for name, value in asdict(self).items()},
            "num_masked_tokens": float(self.num_tokens - self.num_trained_tokens),
            "truncated_rate": self.num_truncated / max(1, self.num_examples),
        }


def save_tokens(examples: Iterable[tuple[int, Example]], path: Path) -> TokenCounts:
    """Write examples, those of a row together, to a Parquet file, a thousand at a time.

    No example gives an empty file.
    """
    counts = TokenCounts()
    rows = iter(examples)
    last: int | None = None
    with pq.ParquetWriter(path, TOKENS_SCHEMA) as writer:
        while batch := list(islice(rows, _BATCH_ROWS)):
            numbers = [row for row, _ in batch]
            num_rows = sum(row != before for before, row in pairwise([last, *numbers]))
            counts = counts.add([example for _, example in batch], num_rows)
            last = numbers[-1]
            columns = {
                "row": numbers,
                "input_ids": [example.input_ids for _, example in batch],
                "labels": [example.labels for _, example in batch],
            }
            writer.write_table(pa.table(columns, schema=TOKENS_SCHEMA))
    return counts


def load_tokens(path: Path, folder: Path) -> Dataset:
    """The examples of a Parquet file, mapped from an Arrow copy in `folder`: memory stays flat."""
    from datasets import Dataset

    folder.mkdir(parents=True, exist_ok=True)
    arrow = folder / f"{path.stem}.arrow"
    with (
        pq.ParquetFile(path) as source,
        arrow.open("wb") as sink,
        pa.ipc.new_stream(sink, TOKENS_SCHEMA) as writer,
    ):
        for batch in source.iter_batches(_BATCH_ROWS):
            writer.write_batch(batch)
    return Dataset.from_file(str(arrow))
