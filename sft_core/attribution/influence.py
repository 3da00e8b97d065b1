"""Which training rows pushed a model to an answer, and which away from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sft_core.attribution.gradients import Features


def influences(query: Features, rows: Features) -> npt.NDArray[np.float64]:
    """Influence of each row on a query: positive where it pushed the model to that answer.

    `query` is (1, dim) and `rows` (n, dim), as `features` gives them. 1 is a row that moves the
    weights as the answer itself would, -1 one that moves them back, 0 one that has no part in it.
    """
    scores: npt.NDArray[np.float64] = rows.astype(np.float64) @ query[0].astype(np.float64)
    return scores


def strongest(scores: npt.NDArray[np.float64], num: int) -> tuple[list[int], list[int]]:
    """Places of the rows that pushed most towards the answer, and of those most away from it.

    At most `num` each, the strongest first; of equal ones the earlier. A score of 0 is neither.
    """
    order = np.argsort(-scores, kind="stable")
    towards = [int(i) for i in order[:num] if scores[i] > 0]
    back = np.argsort(scores, kind="stable")
    return towards, [int(i) for i in back[:num] if scores[i] < 0]


def to_table(row_ids: list[tuple[int, str]], found: Features) -> pa.Table:
    """A line a training row: number, identity, features."""
    flat = pa.array(found.reshape(-1), pa.float32())
    return pa.table(
        {
            "row": pa.array([row for row, _ in row_ids], pa.int64()),
            "row_id": [row_id for _, row_id in row_ids],
            "features": pa.FixedSizeListArray.from_arrays(flat, found.shape[1]),
        }
    )


def from_table(table: pa.Table) -> tuple[list[int], Features]:
    """Row numbers and features of what `to_table` made."""
    column: Any = table["features"].combine_chunks()
    found = column.flatten().to_numpy().reshape(table.num_rows, -1)
    return table["row"].to_pylist(), found
