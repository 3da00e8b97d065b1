"""Training in several processes of this machine, which torch's elastic agent starts and watches.

`train_in_processes` starts `sft_core.training.launcher`, that starts the processes which train
(`sft_core.training.worker`), and what they have to say comes back on standard output. They end with
whoever asked for them, and where one dies, all do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sft_core.config import ModelConfig, TrainingConfig
from sft_core.errors import ConfigError
from sft_core.new_process import follow
from sft_core.training.trainer import Training

_log = logging.getLogger("tunetrail")


def train_in_processes(
    base_folder: Path,
    train_tokens: Path,
    validation_tokens: Path | None,
    config: TrainingConfig,
    model_config: ModelConfig,
    *,
    chat_template: str,
    seed: int,
    output: Path,
    checkpoints: Path | None = None,
    on_progress: Callable[[dict[str, float]], None] | None = None,
) -> Training:
    """What `train_adapter` does, in `config.num_processes` processes.

    Each update sees the rows that one process with so many times the accumulation would see; sums
    are taken in another order, so that losses agree to rounding. The same inputs still give the
    same bytes on a CPU.

    Raises:
        ConfigError: this machine cannot train so, or as `train_adapter`.
        ProcessError: a process died.
        TuneTrailError: as `train_adapter`.
    """
    check_devices(config)
    output.mkdir(parents=True, exist_ok=True)
    request = output / "request.json"
    values = {
        "base_folder": str(base_folder),
        "train_tokens": str(train_tokens),
        "validation_tokens": str(validation_tokens) if validation_tokens else None,
        "config": config.model_dump(mode="json"),
        "model_config": model_config.model_dump(mode="json"),
        "chat_template": chat_template,
        "seed": seed,
        "output": str(output),
        "checkpoints": str(checkpoints or output / "checkpoints"),
        "num_threads": max(1, torch.get_num_threads() // config.num_processes),
    }
    request.write_text(json.dumps(values), encoding="utf-8")
    result: dict[str, Any] = {}

    def on_message(message: dict[str, Any]) -> None:
        if "progress" in message and on_progress is not None:
            on_progress(message["progress"])
        elif "log" in message:
            _log.log(*message["log"])
        result.update(message.get("result", {}))

    follow("sft_core.training.launcher", str(request), on_message)
    return Training(
        adapter=Path(result["adapter"]),
        metrics=result["metrics"],
        series={n: tuple((s, v) for s, v in curve) for n, curve in result["series"].items()},
        snapshots=tuple(map(Path, result["snapshots"])),
        timings=result["timings"],
    )


def check_devices(config: TrainingConfig) -> None:
    """Fails where this machine has no device for each process.

    Raises:
        ConfigError: there are fewer GPUs than processes, or `fsdp` without a GPU.
    """
    num_gpus = torch.cuda.device_count()
    if config.fsdp and num_gpus == 0:
        raise ConfigError(
            "training.fsdp: needs a GPU for each process, and this machine has none: accelerate "
            "does not share weights out among CPUs. Set it to false."
        )
    if 0 < num_gpus < config.num_processes:
        raise ConfigError(
            f"training.num_processes is {config.num_processes}, and this machine has {num_gpus} "
            "GPUs. Lower it."
        )
