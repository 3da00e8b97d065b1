"""A training of the tiny base in a process of its own, which kills itself where it is told to."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sft_core.config import LoraSection, ModelConfig, TrainingConfig
from sft_core.store import sha256_file, sha256_tree
from sft_core.token_file import save_tokens
from sft_core.tokenization import tokenize_records
from sft_core.training.processes import train_in_processes
from sft_core.training.trainer import train_adapter
from tests.sft_core.tiny_model import CHATML, CONTEXT, byte_tokenizer, record, write_base

# 22 rows in batches of 2, of which 2 are accumulated: 6 steps an epoch, the last of them half, 18
# in all. Checkpoints after 4, 8, 12 (the end of an epoch) and 16; points of the loss between them.
CONFIG = TrainingConfig(
    num_train_epochs=3,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    learning_rate=1e-2,
    logging_steps=3,
    save_steps=4,
    lora=LoraSection(r=4, lora_dropout=0.1),
)
RECORDS = [record(i, "abcdefgh"[i % 8] * (i + 1), f"{i * i}") for i in range(22)]
# Other answers than those that are learnt: their loss falls at first and rises later.
HELD_OUT = [record(i, "abcdefgh"[i % 8] * (i + 1), f"{i + 50}") for i in range(5)]


def prepare(folder: Path) -> Path:
    """Base and tokens, for all processes."""
    write_base(folder / "base", byte_tokenizer())
    for name, rows in (("train", RECORDS), ("validation", HELD_OUT)):
        examples = tokenize_records(rows, byte_tokenizer(), CHATML, CONTEXT)
        save_tokens(examples, folder / f"{name}.parquet")
    return folder


def train(
    folder: Path, work: Path, config: TrainingConfig = CONFIG, **values: Any
) -> dict[str, Any]:
    """What a training measured, with the digest of its adapter; checkpoints lie in `work`."""
    fit = train_adapter if config.num_processes == 1 else train_in_processes
    trained = fit(
        folder / "base",
        folder / "train.parquet",
        folder / "validation.parquet",
        config,
        ModelConfig(model_name_or_path=str(folder / "base")),
        chat_template=CHATML,
        seed=7,
        output=work / "output",
        checkpoints=work / "checkpoints",
        **values,
    )
    return asdict(trained) | {
        "adapter": sha256_tree(trained.adapter),
        "snapshots": list(map(sha256_file, trained.snapshots)),
    }


def train_in_process(folder: Path, work: Path, kill: str = "") -> dict[str, Any]:
    """The same in a new process; nothing where it was killed.

    `kill` names the moment: `step 6` when that step is logged, `rename 8` when checkpoint 8 is
    written and about to get its name, `write 8` when the first of its states is written.
    """
    done = subprocess.run([sys.executable, "-m", __name__, folder, work, kill])
    assert done.returncode == (-signal.SIGKILL if kill else 0)
    if kill:
        return {}
    found: dict[str, Any] = json.loads((work / "result.json").read_text())
    return found


def _train(folder: Path, work: Path, kill: str) -> None:
    moment, _, step = kill.partition(" ")

    def on_progress(numbers: dict[str, float]) -> None:
        if moment == "step" and numbers["step"] == int(step):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_event(event: str, args: tuple[Any, ...]) -> None:
        renamed = event == "os.rename" and moment == "rename" and str(args[1]).endswith(f"-{step}")
        written = event == "open" and moment == "write" and f"-{step}/optimizer" in str(args[0])
        if renamed or written:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    sys.addaudithook(on_event)
    work.mkdir(exist_ok=True)
    logging.basicConfig(filename=work / "log", format="%(message)s", level=logging.INFO)
    found = train(folder, work, on_progress=on_progress)
    (work / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _train(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
