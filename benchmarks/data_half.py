"""How fast the data half is, stage by stage, and how much memory it takes.

python -m benchmarks.data_half [--quick] [--json FILE]

A corpus of about 1 KB a row is written first (not timed): text of a Zipf-distributed vocabulary
with planted exact and near duplicates, identifiers, malformed rows and mentions of groups. The
`audit` flow then runs on it in a fresh process. Memory is the sum of the resident sets of that
process and its children, looked at four times a second.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import arguments, measure, publish

_SEED = 7
_BATCH = 10_000
_WORDS_A_ROW = 115
_GROUPS = ("the woman", "the man", "she", "he", "the patient", "her mother", "his father")
_IDENTIFIERS = (
    "mail jane.roe{0}@example.org",
    "call +44 20 7946 {0:04d}",
    "seen on 2021-03-{1:02d}",
)


def write_corpus(path: Path, num_rows: int) -> None:
    """JSONL with `prompt` and `completion`; the same bytes in every run."""
    with path.open("w", encoding="utf-8") as file:
        for row in _rows(num_rows):
            file.write(json.dumps(row) + "\n")


def _rows(num_rows: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(_SEED)
    vocabulary = _vocabulary(rng)
    old: list[list[str]] = []
    for start in range(0, num_rows, _BATCH):
        size = min(_BATCH, num_rows - start)
        # Rank r has a share of about 1 / r of the words (Zipf's law).
        exponents = rng.random((size, _WORDS_A_ROW)) * np.log(len(vocabulary))
        ranks = np.exp(exponents).astype(np.int64) - 1
        kinds = rng.random(size)
        for number, (kind, line) in enumerate(zip(kinds.tolist(), ranks.tolist(), strict=True)):
            words = [vocabulary[rank] for rank in line]
            if kind < 0.02 and old:  # an exact duplicate
                words = old[number % len(old)]
            elif kind < 0.06 and old:  # a near-duplicate: three words of 115 are others
                words = list(old[number % len(old)])
                for place in (10, 60, 110):
                    words[place] = vocabulary[(number + place) % len(vocabulary)]
            elif kind < 0.11:
                words[5] = _IDENTIFIERS[number % 3].format(number, number % 28 + 1)
            elif kind < 0.3:
                words[7] = _GROUPS[number % len(_GROUPS)]
            if number % 50 == 0:
                old = [*old[-999:], words]
            cut = 40 + number % 60
            answer = " ".join(words[cut:]) if kind < 0.998 else ""
            yield {"prompt": " ".join(words[:cut]), "completion": answer}


def _vocabulary(rng: np.random.Generator) -> list[str]:
    letters = np.array(list("aeiourstlnmdcph"))
    sizes = rng.integers(3, 11, 50_000)
    return ["".join(rng.choice(letters, size)) for size in sizes.tolist()]


def run_audit(corpus: str, home: str) -> dict[str, Any]:
    """Seconds of each stage of the `audit` flow."""
    os.environ["TUNETRAIL_HOME"] = home
    from mlflow import MlflowClient

    from flows.audit import audit
    from sft_core.config import PipelineConfig
    from sft_core.store import make_home

    make_home()
    sources = [{"path": corpus, "licence": "CC0-1.0", "consent": "not needed"}]
    config = {
        "name": "data-half",
        "ingest": {"sources": sources},
        "policy": {"max_label_disparity": None},  # free text has no labels
    }
    run_id = audit(PipelineConfig.model_validate(config))
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiment = client.get_run(run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {
        run.data.tags["tunetrail.stage"]: run.data.metrics["stage_seconds"]
        for run in sorted(children, key=lambda run: run.info.start_time)
    }


def main() -> None:
    """Measure, print the table."""
    args = arguments(str(__doc__))
    num_rows = 20_000 if args.quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_corpus(corpus, num_rows)
        size = corpus.stat().st_size
        measured = measure(run_audit, str(corpus), f"{folder}/home")
    total, peak = measured.pop("seconds"), measured.pop("peak_mib")
    results = [
        {
            "stage": stage,
            "seconds": seconds,
            "rows/s": num_rows / seconds,
            "share": f"{seconds / total:.0%}",
        }
        for stage, seconds in measured.items()
    ]
    results.append(
        {"stage": "whole", "seconds": total, "rows/s": num_rows / total, "share": "100%"}
    )
    print(f"{num_rows:,} rows, {size / 1e6:,.0f} MB, peak {peak:,.0f} MiB")
    publish(args, results, {"600 s / whole": 600 / total, "4 GiB / peak": 4096 / peak})


if __name__ == "__main__":
    main()
