"""Stage 6: training rows that overlap held-out rows or a benchmark are taken out."""

from __future__ import annotations

from collections.abc import Iterator

from data_checks.contamination import find_contaminated
from data_checks.reading import read_rows
from sft_core.config import BenchmarkFile, ContaminationConfig, SourceConfig
from sft_core.errors import DataError
from sft_core.records import Decision
from sft_core.reports import DatasetRef, StageReport
from sft_core.store import read_records
from tasks.sieve import sieve
from tasks.stage import at_most, stage

_MAX_LINE_BYTES = 10_000_000


@stage("decontaminate", gates=(at_most("dropped_rate", "max_contamination_rate"),))
def decontaminate(splits: dict[str, DatasetRef], config: ContaminationConfig) -> StageReport:
    """Training rows without the held-out items; the ledger names the item that a row leaks."""

    def items() -> Iterator[tuple[str, str]]:
        for name in ("validation", "test"):
            for record in read_records(splits[name]):
                yield f"{name}:row={record.row}", record.text()
        for benchmark in config.benchmarks:
            yield from _benchmark_items(benchmark)

    train = splits["train"]
    leaks = find_contaminated(read_records(train), items(), config.min_overlap)
    worst = {leak.row: leak for leak in sorted(leaks, key=lambda leak: leak.overlap)}
    decisions = {
        row: Decision(row, "dropped", "contaminated", f"{leak.item} overlap={leak.overlap:.3f}")
        for row, leak in worst.items()
    }
    judged = ((record, decisions.get(record.row)) for record in read_records(train))
    return sieve("decontaminate", train, judged).plus(metrics={"num_leaks": float(len(leaks))})


def _benchmark_items(benchmark: BenchmarkFile) -> Iterator[tuple[str, str]]:
    for line, row in read_rows(SourceConfig(path=benchmark.path), _MAX_LINE_BYTES):
        missing = [column for column in benchmark.columns if column not in row]
        if missing:
            raise DataError(
                f"{benchmark.path}: line {line}: no column {missing[0]!r}. "
                "Set contamination.benchmarks.columns."
            )
        text = "\n".join(str(row[column]) for column in benchmark.columns)
        yield f"{benchmark.path}:{line}", text
