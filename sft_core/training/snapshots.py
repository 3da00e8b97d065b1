"""Snapshots: the trained weights and Adam's second moment at a few points of a training.

Attribution asks afterwards what a row did to the weights while they were learnt. The training is
cut into equal parts, and there is a snapshot at the end of each: at its beginning an adapter has
learnt so little that the gradients of all rows look alike.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback

from sft_core.config import TrainingConfig

_WEIGHT, _MOMENT, _SETTINGS = "weight:", "second_moment:", "settings"


@dataclass(frozen=True)
class Snapshot:
    """A point of a training; all tensors are in float32, by the names of the parameters."""

    step: int
    """Updates made before it."""
    learning_rate: float
    """That of the next update."""
    weights: dict[str, torch.Tensor]
    second_moments: dict[str, torch.Tensor]
    """Running mean of the squared gradients, corrected for its start at zero.

    Source: Kingma and Ba (2015), Adam, algorithm 1 (v with a hat).
    """

    @classmethod
    def read(cls, path: Path) -> Snapshot:
        """Inverse of what `Snapshots` writes."""
        parts: dict[str, dict[str, torch.Tensor]] = {_WEIGHT: {}, _MOMENT: {}}
        with safe_open(path, framework="pt") as file:
            settings = json.loads(file.metadata()[_SETTINGS])
            for key in file.keys():  # noqa: SIM118  (it is no mapping)
                kind = _WEIGHT if key.startswith(_WEIGHT) else _MOMENT
                parts[kind][key.removeprefix(kind)] = file.get_tensor(key)
        return cls(settings["step"], settings["learning_rate"], parts[_WEIGHT], parts[_MOMENT])


class Snapshots(TrainerCallback):
    """Writes a file `step-NUMBER` at the end of each of `num_snapshots` parts of a training.

    The files outlive an interruption; a resumed training writes those that it passes again. There
    is at most one a step. There are none of anything but LoRA, which is small, nor where the
    weights are shared out among processes.
    """

    def __init__(self, trainer: Any, config: TrainingConfig, folder: Path) -> None:
        self._trainer = trainer
        kept = config.peft_type == "LORA" and not config.fsdp
        self._num = config.num_snapshots if kept else 0
        self._folder = folder

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Write one where it is due."""
        ends = range(1, self._num + 1)
        due = {max(1, end * state.max_steps // self._num) for end in ends}
        if state.global_step in due and state.is_world_process_zero:
            self._write(state.global_step)

    def files(self, last_step: int) -> tuple[Path, ...]:
        """What was written up to a step, in order."""
        found = sorted(self._folder.glob("step-*.safetensors"))
        return tuple(path for path in found if int(path.stem.removeprefix("step-")) <= last_step)

    def _write(self, step: int) -> None:
        optimizer = self._trainer.optimizer
        decay = optimizer.param_groups[0]["betas"][1]
        tensors = {}
        for name, weight in self._trainer.model.named_parameters():
            if weight.requires_grad:
                moment = optimizer.state[weight]["exp_avg_sq"].float() / (1.0 - decay**step)
                tensors[_WEIGHT + name] = weight.detach().float().cpu().clone()
                tensors[_MOMENT + name] = moment.cpu()
        rate = self._trainer.lr_scheduler.get_last_lr()[0]
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"step-{step:09d}.safetensors"
        part = path.with_suffix(".part")
        # Several entries would be written in an order that changes from process to process.
        settings = json.dumps({"step": step, "learning_rate": rate})
        save_file(tensors, part, {_SETTINGS: settings})
        os.replace(part, path)
