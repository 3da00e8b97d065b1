"""One of several processes that train together; `sft_core.training.processes` has it started."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

import torch

from sft_core.config import ModelConfig, TrainingConfig
from sft_core.errors import TuneTrailError
from sft_core.training.trainer import train_adapter


class _Lines(logging.Handler):
    """Says what is logged, progress and result as JSON lines."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def say(self, **message: Any) -> None:
        """One line, in one write: lines of several processes do not mix."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line of the log on."""
        self.say(log=[record.levelno, record.getMessage()])


def _end_with_the_caller() -> None:
    """Standard input ends when the training is called off, or when who called for it is gone."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def _train(request: dict[str, Any], rank: int, lines: _Lines) -> None:
    torch.set_num_threads(request["num_threads"])
    validation = request["validation_tokens"]
    trained = train_adapter(
        Path(request["base_folder"]),
        Path(request["train_tokens"]),
        Path(validation) if validation else None,
        TrainingConfig.model_validate(request["config"]),
        ModelConfig.model_validate(request["model_config"]),
        chat_template=request["chat_template"],
        seed=request["seed"],
        output=Path(request["output"]) / f"process-{rank}",
        checkpoints=Path(request["checkpoints"]),
        on_progress=(lambda numbers: lines.say(progress=numbers)) if rank == 0 else None,
    )
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    if rank == 0:
        paths = {
            "adapter": str(trained.adapter),
            "snapshots": list(map(str, trained.snapshots)),
        }
        lines.say(result=asdict(trained) | paths)


def main() -> None:
    """Train, and say what comes of it."""
    _end_with_the_caller()
    lines = _Lines(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)  # what libraries print goes to standard error
    rank = int(os.environ["RANK"])
    if rank == 0:
        log = logging.getLogger("tunetrail")
        log.addHandler(lines)
        log.setLevel(logging.INFO)
    try:
        _train(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), rank, lines)
    except TuneTrailError as error:
        lines.say(error=type(error).__name__, message=str(error))
        raise


if __name__ == "__main__":
    main()
