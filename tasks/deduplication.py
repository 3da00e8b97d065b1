"""Stage 4: exact duplicates after normalisation, then verified near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from data_checks.exact_duplicates import find_exact_duplicates
from data_checks.near_duplicates import catch_probability, find_near_duplicates
from sft_core.config import DedupConfig
from sft_core.records import Decision, Record, dropped_rows
from sft_core.reports import DatasetRef, StageReport
from sft_core.store import read_records
from tasks.sieve import sieve
from tasks.stage import at_most, stage


@stage("deduplicate", gates=(at_most("duplicate_rate", "max_duplicate_rate"),))
def deduplicate(data: DatasetRef, config: DedupConfig) -> StageReport:
    """The earliest row of each cluster; with `keep`, near-duplicates stay and share its name."""
    exact = find_exact_duplicates(read_records(data))
    near = find_near_duplicates(
        (r for r in read_records(data) if r.row not in exact), config.min_similarity
    )
    decisions = [
        Decision(row, "dropped", "exact_duplicate", f"row={first}") for row, first in exact.items()
    ]
    if config.near_duplicates == "drop":
        closest = near.closest()
        for row in near.clusters:
            other, similarity = closest[row]
            evidence = f"row={other} jaccard={similarity:.3f}"
            decisions.append(Decision(row, "dropped", "near_duplicate", evidence))
    names = {r.row: r.row_id for r in read_records(data)}

    dropped = dropped_rows(decisions)

    def judged() -> Iterator[tuple[Record, Decision | None]]:
        for record in read_records(data):
            cluster = names[near.clusters.get(record.row, record.row)]
            decision = dropped.get(record.row)
            yield (record if decision else replace(record, cluster=cluster)), decision

    return sieve("deduplicate", data, judged()).plus(
        metrics={
            "num_exact_duplicates": float(len(exact)),
            "num_near_duplicates": float(len(near.clusters)),
            "num_near_duplicate_pairs": float(len(near.pairs)),
            "duplicate_rate": (len(exact) + len(near.clusters)) / max(1, data.num_rows),
            "catch_probability": catch_probability(config.min_similarity, config.min_similarity),
        },
    )
