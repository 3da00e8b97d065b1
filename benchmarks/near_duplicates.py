"""Near-duplicates against datasketch and rensa: recall, precision, documents a second, memory.

    make bench-setup
    python -m benchmarks.near_duplicates [--quick] [--json FILE]

All contestants look for rows that repeat an earlier one, at Jaccard 0.8 on word 5-grams, in one
corpus of instruction pairs of which 22 % are edits of another row. Each run is a fresh process,
the runs alternate, and figures are medians. The peers run as their documentation shows, with 128
permutations. They take sets of grams, so their time from the text holds the making of the grams in
Python; `call_seconds`, of rensa, leaves that out. Ours is always from the text.

The truth is brute force: exact Jaccard of a random sample of rows to all earlier rows, by a sparse
matrix product that shares no code with the checks. Recall and precision are of the sampled rows.
"""

from __future__ import annotations

import gc
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from benchmarks.duplicate_corpus import corpus
from benchmarks.harness import arguments, measure, publish
from data_checks.overlap.exact_duplicates import find_exact_duplicates
from data_checks.overlap.near_duplicates import find_near_duplicates
from sft_core.records import Record

MIN_SIMILARITY = 0.8
NUM_PERM = 128
OURS = "tunetrail"
Grams = Iterable[tuple[str, list[str]]]

_WORD = re.compile(r"\w+")


def main() -> None:
    """Contest, truth and scaling, in one table."""
    args = arguments(__doc__ or "")
    num_rows, num_sampled, num_rounds = (10_000, 5_000, 1) if args.quick else (100_000, 20_000, 3)
    sizes = (10_000, 30_000) if args.quick else (10_000, 100_000, 300_000, 1_000_000)
    truth = measure(brute_force, num_rows, num_sampled)
    names = [OURS, *PEERS]
    rounds = [{name: measure(contest, name, num_rows) for name in names} for _ in range(num_rounds)]
    results = [_score(name, num_rows, [r[name] for r in rounds], truth) for name in names]
    ratios = {
        f"{name}, {key}": statistics.median(r[name][key] / r[OURS]["seconds"] for r in rounds)
        for name in PEERS
        for key in ("seconds", "call_seconds")
        if key in rounds[0][name]
    }
    scaled = [_scale(size) for size in sizes]
    ratios[f"cost of a row, {sizes[0]:,} to {sizes[-1]:,} rows"] = (
        scaled[-1]["documents_per_second"] / scaled[0]["documents_per_second"]
    )
    publish(args, results + scaled, ratios)


def _grams(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def _datasketch(rows: Grams) -> set[int]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=MIN_SIMILARITY, num_perm=NUM_PERM)
    dropped = set()
    for name, grams in rows:
        sketch = MinHash(num_perm=NUM_PERM)
        sketch.update_batch([gram.encode() for gram in grams])
        if index.query(sketch):
            dropped.add(int(name))
        else:
            index.insert(name, sketch)
    return dropped


def _rensa_r(rows: Grams) -> set[int]:
    from rensa import RMinHashDeduplicator

    index = RMinHashDeduplicator(threshold=MIN_SIMILARITY, num_perm=NUM_PERM, use_lsh=True)
    return {row for row, kept in enumerate(index.add_pairs(rows)) if not kept}


def _rensa_c(rows: Grams) -> set[int]:
    from rensa import CMinHashDeduplicator

    index = CMinHashDeduplicator(threshold=MIN_SIMILARITY, num_perm=NUM_PERM)
    return {row for row, kept in enumerate(index.add_pairs(rows)) if not kept}


PEERS: dict[str, Callable[[Grams], set[int]]] = {
    "datasketch MinHashLSH": _datasketch,
    "rensa RMinHashDeduplicator": _rensa_r,
    "rensa CMinHashDeduplicator": _rensa_c,
}


def _ours(records: list[Record]) -> set[int]:
    members = find_near_duplicates(records, MIN_SIMILARITY).members
    return {row for row, member in members.items() if member.kept != row}


def contest(name: str, num_rows: int) -> dict[str, Any]:
    """Rows that a contestant takes for repeats of an earlier one, and how long that takes it.

    A small piece goes first, so that no contestant is timed while it loads.
    """
    records = list(corpus(num_rows))
    if name == OURS:
        _ours(records[:500])
        seconds, dropped = _timed(lambda: _ours(records))
        return {"seconds": seconds, "dropped": dropped}
    peer = PEERS[name]
    texts = [record.text() for record in records]
    peer((str(row), _grams(text)) for row, text in enumerate(texts[:500]))
    seconds, dropped = _timed(lambda: peer((str(i), _grams(t)) for i, t in enumerate(texts)))
    if peer is _datasketch:
        return {"seconds": seconds, "dropped": dropped}
    prepared = [(str(row), _grams(text)) for row, text in enumerate(texts)]
    gc.freeze()  # or the collector would walk them again and again at the peer's cost
    call_seconds, _ = _timed(lambda: peer(prepared))
    return {"seconds": seconds, "call_seconds": call_seconds, "dropped": dropped}


def _timed(work: Callable[[], set[int]]) -> tuple[float, set[int]]:
    started = time.monotonic()
    dropped = work()
    return time.monotonic() - started, dropped


def brute_force(num_rows: int, num_sampled: int) -> dict[str, Any]:
    """A random sample of rows, and those of them that repeat an earlier row."""
    sets = [
        np.unique(np.fromiter(map(hash, _grams(record.text())), np.int64))
        for record in corpus(num_rows)
    ]
    sizes = np.array([own.size for own in sets])
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    ones = np.ones(columns.size, np.int32)
    matrix = csr_array((ones, columns, np.concatenate([[0], np.cumsum(sizes)])))
    sampled = sorted(random.Random(1).sample(range(num_rows), num_sampled))
    transposed = matrix.T.tocsr()
    repeats = set()
    for start in range(0, num_sampled, 250):
        rows = np.array(sampled[start : start + 250])
        shared = (matrix[rows] @ transposed).tocoo()
        left, right = rows[shared.coords[0]], shared.coords[1]
        similar = shared.data >= MIN_SIMILARITY * (sizes[left] + sizes[right] - shared.data)
        repeats.update(left[similar & (right < left)].tolist())
    return {"sampled": set(sampled), "repeats": repeats}


def _score(
    name: str, num_rows: int, runs: list[dict[str, Any]], truth: dict[str, Any]
) -> dict[str, Any]:
    dropped = runs[0]["dropped"] & truth["sampled"]
    correct = len(dropped & truth["repeats"])
    medians = {
        key: statistics.median(run[key] for run in runs)
        for key in ("seconds", "call_seconds")
        if key in runs[0]
    }
    return {
        "contestant": name,
        "rows": num_rows,
        **medians,
        "documents_per_second": num_rows / medians["seconds"],
        "recall": correct / len(truth["repeats"]),
        "precision": correct / len(dropped),
    }


def _scale(num_rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "records.jsonl")
        with path.open("wb") as file:
            file.writelines(record.to_json() + b"\n" for record in corpus(num_rows))
        found = measure(scale, path)
    return {
        "contestant": f"{OURS}, exact and near, from a file",
        "rows": num_rows,
        "seconds": found["seconds"],
        "documents_per_second": num_rows / found["seconds"],
        "exact_seconds": found["exact_seconds"],
        "peak_mib": found["peak_mib"],
    }


def scale(path: Path) -> dict[str, Any]:
    """What the stage does before it writes: both checks, each of which reads the file."""
    few = list(islice(_read(path), 500))
    find_near_duplicates(few, MIN_SIMILARITY)
    find_exact_duplicates(few)
    started = time.monotonic()
    exact = find_exact_duplicates(_read(path))
    exact_seconds = time.monotonic() - started
    find_near_duplicates((r for r in _read(path) if r.row not in exact), MIN_SIMILARITY)
    return {"exact_seconds": exact_seconds, "seconds": time.monotonic() - started}


def _read(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for line in file:
            yield Record.from_json(line)


if __name__ == "__main__":
    main()
