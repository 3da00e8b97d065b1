"""How fast rows become tokens with a loss mask, and how much memory that takes.

python -m benchmarks.tokenization [--quick] [--json FILE]

Rows of the demo data set, repeated and numbered so that no two are equal, go through the demo
base's tokenizer and template into the file that training reads, and from there into the Arrow copy
that it maps. Every contestant runs in a fresh process. The peer prepares a row as TRL does:
`datasets.map` over the template with and without the answer. Memory must not grow with the rows:
ours is measured at two sizes. Processor seconds, imports and all threads included, tell
more than the clock on a machine that does other work.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, measure, publish

_ROOT = Path(__file__).parents[1]
_ROWS = _ROOT / "examples" / "triage" / "data" / "referrals.jsonl"
_BASE = _ROOT / "examples" / "triage" / "base"
_COLUMNS = ("prompt", "completion")
_MAX_LENGTH = 1_024
_MAX_GIB = 3.0
"""What a million rows may take."""


def _conversations(num_rows: int) -> Iterator[list[dict[str, str]]]:
    lines = [json.loads(line) for line in _ROWS.read_text(encoding="utf-8").splitlines()]
    sound = [row for row in lines if all(isinstance(row.get(k), str) for k in _COLUMNS)]
    rows = [
        row
        for row in sound
        if row["completion"] and row["prompt"].isascii() and len(row["prompt"]) < 400
    ]
    for number in range(num_rows):
        row = rows[number % len(rows)]
        yield [
            {"role": "user", "content": f"{row['prompt']} ({number})"},
            {"role": "assistant", "content": row["completion"]},
        ]


def _ours(num_rows: int) -> dict[str, Any]:
    from sft_core.base_model import load_tokenizer
    from sft_core.config import ModelConfig, TokenizationConfig
    from sft_core.records import Record
    from sft_core.token_file import load_tokens, save_tokens
    from sft_core.tokenization import chat_template, tokenize_records

    tokenizer = load_tokenizer(_BASE, ModelConfig(model_name_or_path=str(_BASE)))
    template = chat_template(tokenizer, TokenizationConfig())
    records = (Record(n, f"{n:064x}", turns) for n, turns in enumerate(_conversations(num_rows)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.parquet"
        counts = save_tokens(tokenize_records(records, tokenizer, template, _MAX_LENGTH), path)
        mapped = load_tokens(path, Path(folder))
        seen = sum(len(batch["input_ids"]) for batch in mapped.iter(1_000))
    if not seen == counts.num_examples == num_rows:
        raise AssertionError(f"{seen} of {num_rows} rows came back")
    return {"tokens": counts.num_tokens, "processor_seconds": time.process_time()}


def _peer(num_rows: int) -> dict[str, Any]:
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(str(_BASE))

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        prompt = tokenizer.apply_chat_template(
            row["turns"][:1], add_generation_prompt=True, return_dict=False
        )
        ids = tokenizer.apply_chat_template(row["turns"], return_dict=False)[:_MAX_LENGTH]
        mask = [int(n >= len(prompt)) for n in range(len(ids))]
        return {"input_ids": ids, "completion_mask": mask}

    with tempfile.TemporaryDirectory() as folder:
        rows = datasets.Dataset.from_generator(
            lambda: ({"turns": turns} for turns in _conversations(num_rows)), cache_dir=folder
        )
        found = rows.map(prepare, remove_columns=["turns"])
        tokens = sum(sum(map(len, b["input_ids"])) for b in found.iter(1_000))
    return {"tokens": tokens, "processor_seconds": time.process_time()}


def main() -> None:
    """Print the table; fails where a million rows take more than they may."""
    args = arguments(__doc__ or "")
    few, many = (5_000, 20_000) if args.quick else (50_000, 1_000_000)
    contestants = (("tunetrail", _ours, few), ("datasets.map", _peer, few))
    results = []
    for name, function, size in (*contestants, ("tunetrail", _ours, many)):
        found = measure(function, size)
        results.append(
            {
                "contestant": name,
                "rows": size,
                "tokens": found["tokens"],
                "seconds": found["seconds"],
                "rows a second": size / found["seconds"],
                "processor seconds": found["processor_seconds"],
                "peak GiB": found["peak_mib"] / 1_024,
            }
        )
    ours, peer, large = results
    publish(
        args,
        results,
        {
            "speed against datasets.map": ours["rows a second"] / peer["rows a second"],
            f"{_MAX_GIB:g} GiB over the peak of {many:,} rows": _MAX_GIB / large["peak GiB"],
        },
    )
    if large["peak GiB"] > _MAX_GIB:
        raise SystemExit(f"{many:,} rows take {large['peak GiB']:.2f} GiB, limit {_MAX_GIB:g} GiB.")


if __name__ == "__main__":
    main()
