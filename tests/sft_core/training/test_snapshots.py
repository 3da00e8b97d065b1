"""Snapshots are the training's own weights and second moments, at the end of equal parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sft_core.config import LoraSection, TrainingConfig
from sft_core.training.snapshots import Snapshot
from tests.sft_core.training.interrupted import CONFIG, prepare, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("inputs"))


def files(folder: Path, work: Path, config: TrainingConfig) -> list[Path]:
    train(folder, work, config)
    return sorted((work / "checkpoints" / "snapshots").glob("*"))


def test_they_are_what_the_checkpoint_of_the_same_step_holds(folder: Path, tmp_path: Path) -> None:
    # 18 steps: halves end after 9 and 18.
    settings = {"num_snapshots": 2, "save_steps": 9}
    found = files(folder, tmp_path, CONFIG.model_copy(update=settings))
    assert [path.name for path in found] == [f"step-{s:09d}.safetensors" for s in (9, 18)]
    first = Snapshot.read(found[0])
    checkpoint = tmp_path / "checkpoints" / "checkpoint-9"
    saved = load_file(checkpoint / "adapter_model.safetensors")
    assert first.step == 9
    assert len(first.weights) == len(saved)
    for name, weight in first.weights.items():
        assert torch.equal(weight, saved[name.replace(".default", "")])
    optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    moments = {m.shape: 0 for m in first.second_moments.values()}
    raw = [state["exp_avg_sq"] for state in optimizer["state"].values()]
    assert {m.shape for m in raw} == moments.keys()
    total = sum(float(m.sum()) for m in raw)
    corrected = sum(float(m.sum()) for m in first.second_moments.values())
    # Nine updates: v / (1 - 0.999 ** 9).
    assert corrected == pytest.approx(total / (1 - 0.999**9), rel=1e-4)
    schedule = torch.load(checkpoint / "scheduler.pt", weights_only=True)
    assert first.learning_rate == schedule["_last_lr"][0]


@pytest.mark.parametrize(
    "changes",
    [{"num_snapshots": 0}, {"peft_type": "IA3", "lora": LoraSection()}],
    ids=["none asked for", "no LoRA"],
)
def test_there_are_none(changes: dict[str, object], folder: Path, tmp_path: Path) -> None:
    assert files(folder, tmp_path, CONFIG.model_copy(update=changes)) == []


def test_there_is_at_most_one_a_step(folder: Path, tmp_path: Path) -> None:
    short = CONFIG.model_copy(update={"max_steps": 3, "num_snapshots": 8})
    assert [Snapshot.read(p).step for p in files(folder, tmp_path, short)] == [1, 2, 3]


def test_those_after_the_best_weights_do_not_count(folder: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={
            "num_train_epochs": 6,
            "lr_scheduler_type": "constant",
            "load_best_model_at_end": True,
            "num_snapshots": 6,
        }
    )
    found = train(folder, tmp_path, config)
    best = found["metrics"]["adapter_step"]
    written = [int(p.stem[5:]) for p in (tmp_path / "checkpoints" / "snapshots").glob("*")]
    assert max(written) > best, "the case needs a snapshot after the best weights"
    assert len(found["snapshots"]) == sum(step <= best for step in written)
