"""Rows end to end in one sequence against rows of like length side by side: time and memory.

python -m benchmarks.packing [--quick] [--json FILE]

The demo's rows through the demo base, one thread: the trainer's own batches and collator, forward,
backward and update. Both ways get the same rows in the same batches; each size runs both by turns,
every time in a fresh process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, measure, publish
from benchmarks.tokenization import _BASE, _conversations

_ROUNDS = 3
_SIZES = (4, 16, 64)
"""Rows a batch."""


def _steps(packing: bool, batch_rows: int, num_rows: int) -> dict[str, Any]:
    """Real tokens a second of one pass over the rows, without its first two steps."""
    import torch

    from sft_core.base_model import load_tokenizer
    from sft_core.config import ModelConfig, TokenizationConfig, TrainingConfig
    from sft_core.records import Record
    from sft_core.token_file import load_tokens, save_tokens
    from sft_core.tokenization import chat_template, tokenize_records
    from sft_core.training.trainer import build_trainer

    torch.set_num_threads(1)
    model_config = ModelConfig(model_name_or_path=str(_BASE))
    tokenizer = load_tokenizer(_BASE, model_config)
    template = chat_template(tokenizer, TokenizationConfig())
    records = (Record(n, f"{n:064x}", turns) for n, turns in enumerate(_conversations(num_rows)))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_tokens(tokenize_records(records, tokenizer, template, 512), folder / "train.parquet")
        trainer: Any
        trainer, _ = build_trainer(
            _BASE,
            load_tokens(folder / "train.parquet", folder),
            None,
            TrainingConfig(packing=packing, per_device_train_batch_size=batch_rows),
            model_config,
            chat_template=template,
            seed=0,
            output=folder / "work",
        )
        loader = trainer.get_train_dataloader()
        trainer.create_optimizer()
        model = trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        computed, seconds, tokens = 0, 0.0, 0
        for step, batch in enumerate(loader):
            count = (batch["labels"][:, 1:] != -100).sum()
            started = time.perf_counter()
            trainer.training_step(model, batch, count)
            trainer.optimizer.step()
            model.zero_grad()
            if step >= 2:
                seconds += time.perf_counter() - started
                computed += batch["input_ids"].numel()
                mask = batch.get("attention_mask")
                tokens += batch["input_ids"].numel() if mask is None else int(mask.sum())
    return {"seconds": seconds, "tokens": tokens, "padding": 1 - tokens / computed}


def main() -> None:
    """Print the table."""
    args = arguments(__doc__ or "")
    sizes, rounds, num_rows = ((16,), 1, 320) if args.quick else (_SIZES, _ROUNDS, 320)
    results = []
    ratios = {}
    for size in sizes:
        found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for _ in range(rounds):
            for packing in found:
                found[packing].append(measure(_steps, packing, size, num_rows))
        rates = {
            packing: statistics.median(one["tokens"] / one["seconds"] for one in each)
            for packing, each in found.items()
        }
        for packing, each in found.items():
            results.append(
                {
                    "contestant": "packed" if packing else "like length",
                    "rows a batch": size,
                    "real tokens a second": rates[packing],
                    "padding": each[0]["padding"],
                    "peak MiB": statistics.median(one["peak_mib"] for one in each),
                }
            )
        ratios[f"like length against packed, {size} rows"] = rates[False] / rates[True]
    publish(args, results, ratios)


if __name__ == "__main__":
    main()
