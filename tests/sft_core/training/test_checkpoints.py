"""An interrupted training goes on, and ends as if nothing had happened."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sft_core.errors import ConfigError, IntegrityError
from sft_core.training.checkpoints import Checkpoints, checkpoint_folder
from tests.sft_core.training.interrupted import CONFIG, prepare, train, train_in_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield prepare(tmp_path_factory.mktemp("inputs"))
    torch.set_num_threads(threads)


class Interrupted(BaseException):
    pass


def interrupt_at(step: int) -> Any:
    def on_progress(numbers: dict[str, float]) -> None:
        if numbers["step"] == step:
            raise Interrupted

    return on_progress


def interrupted(folder: Path, work: Path, step: int, **values: Any) -> list[str]:
    """Train up to the log of a step; returns the names of the checkpoints."""
    with pytest.raises(Interrupted):
        train(folder, work, on_progress=interrupt_at(step), **values)
    return names(work)


def names(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "checkpoints").glob("checkpoint-*"))


def measured(run: dict[str, Any]) -> dict[str, Any]:
    """All that must repeat, as JSON gives it back."""
    kept = {key: run[key] for key in ("metrics", "series", "adapter", "snapshots")}
    found: dict[str, Any] = json.loads(json.dumps(kept))
    return found


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measured(train(folder, tmp_path_factory.mktemp("whole")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "resumed_after"),
    [
        (["step 3"], 0),
        (["step 9"], 8),
        (["step 6", "rename 8", "write 12", "step 15"], 12),
    ],
    ids=["before a checkpoint", "in the second epoch", "again and again, also while saving"],
)
def test_killed_and_resumed_equals_uninterrupted(
    kills: list[str], resumed_after: int, folder: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """SIGKILL; then the same curves, counts and bytes in a new process."""
    for kill in kills:
        train_in_process(folder, tmp_path, kill)
    found = train_in_process(folder, tmp_path)
    assert found["timings"]["resumed_after_step"] == resumed_after
    assert measured(found) == whole
    # 6 steps an epoch: a held-out loss before the first step and after each epoch.
    assert [step for step, _ in whole["series"]["eval_loss"]] == [0, 6, 12, 18]
    assert [step for step, _ in whole["series"]["loss"]] == [3, 6, 9, 12, 15, 18]


def test_timings_are_those_of_the_steps_that_this_process_made(
    folder: Path, tmp_path: Path
) -> None:
    interrupted(folder, tmp_path, 15)
    found = train(folder, tmp_path)
    timings = found["timings"]
    assert timings["resumed_after_step"] == 12
    # The last of three epochs saw a third of the tokens.
    tokens = timings["tokens_per_second"] * timings["train_seconds"]
    assert tokens == pytest.approx(found["metrics"]["num_train_tokens"] / 3)


@pytest.mark.parametrize("damage", ["optimizer.pt", "manifest.json", "gone", "foreign file"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    damage: str,
    folder: Path,
    whole: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert interrupted(folder, tmp_path, 9) == ["checkpoint-4", "checkpoint-8"]
    newest = tmp_path / "checkpoints" / "checkpoint-8"
    if damage == "gone":
        (newest / "rng_state.pth").unlink()
    elif damage == "foreign file":
        (newest / "scaler.pt").write_bytes(b"made by somebody else")
    else:
        content = (newest / damage).read_bytes()
        (newest / damage).write_bytes(content[:20] + b"!" + content[21:])
    with caplog.at_level(logging.WARNING, logger="tunetrail"):
        found = train(folder, tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.name == "tunetrail"]
    assert len(lines) == 1
    assert "checkpoint-8" in lines[0]
    assert "the checkpoint before it is used" in lines[0]
    assert found["timings"]["resumed_after_step"] == 4
    assert measured(found) == whole


def test_old_checkpoints_are_removed_and_nothing_half_written_counts(
    folder: Path, tmp_path: Path
) -> None:
    one = CONFIG.model_copy(update={"save_total_limit": 1})
    assert interrupted(folder, tmp_path / "one", 15, config=one) == ["checkpoint-12"]
    none = CONFIG.model_copy(update={"save_steps": None})
    assert interrupted(folder, tmp_path / "none", 15, config=none) == []
    half = tmp_path / "one" / "checkpoints" / "unfinished" / "checkpoint-16"
    half.mkdir(parents=True)
    found = Checkpoints(tmp_path / "one" / "checkpoints", 1).newest()
    assert found is not None
    assert found[0] == 12
    assert not half.exists()


def test_a_checkpoint_holds_no_pickled_code(folder: Path, tmp_path: Path) -> None:
    interrupted(folder, tmp_path, 6)
    files = {path.name for path in (tmp_path / "checkpoints" / "checkpoint-4").iterdir()}
    assert "training_args.bin" not in files
    pickles = [name for name in files if name.endswith((".pt", ".pth", ".bin"))]
    assert sorted(pickles) == ["loop.pt", "optimizer.pt", "rng_state.pth", "scheduler.pt"]


# The rows are learnt by heart, and the held-out loss gets worse after the first epoch.
TOO_LONG = CONFIG.model_copy(
    update={
        "num_train_epochs": 6,
        "lr_scheduler_type": "constant",
        "load_best_model_at_end": True,
    }
)


def test_the_best_weights_are_taken_and_training_stops_early(folder: Path, tmp_path: Path) -> None:
    all_epochs = train(folder, tmp_path / "all", TOO_LONG)
    curve = dict(all_epochs["series"]["eval_loss"][1:])
    best = min(curve, key=curve.__getitem__)
    assert best < 36, "the case needs an epoch that is worse than one before"
    assert all_epochs["metrics"]["adapter_step"] == best
    last = TOO_LONG.model_copy(
        update={"num_train_epochs": best / 6, "load_best_model_at_end": False}
    )
    until_best = train(folder, tmp_path / "until", last)
    assert until_best["adapter"] == all_epochs["adapter"]

    patient = TOO_LONG.model_copy(update={"early_stopping_patience": 1})
    stopped = train(folder, tmp_path / "early", patient)
    steps = sorted(curve)
    first_worse = next(b for a, b in itertools.pairwise(steps) if curve[b] >= curve[a])
    assert stopped["metrics"]["num_steps"] == first_worse
    assert stopped["metrics"]["adapter_step"] == first_worse - 6

    interrupted(folder, tmp_path / "again", first_worse - 3, config=patient)
    assert measured(train(folder, tmp_path / "again", patient)) == measured(stopped)


def test_best_weights_that_were_damaged_are_not_taken(folder: Path, tmp_path: Path) -> None:
    def damage(numbers: dict[str, float]) -> None:
        if numbers["step"] == 33:
            for path in (tmp_path / "checkpoints").glob("checkpoint-*/adapter_model.safetensors"):
                path.write_bytes(path.read_bytes()[:-1] + b"!")

    with pytest.raises(IntegrityError, match=r"adapter_model\.safetensors differs"):
        train(folder, tmp_path, TOO_LONG, on_progress=damage)


def test_nothing_to_choose_by(folder: Path, tmp_path: Path) -> None:
    empty = prepare_without_held_out(folder, tmp_path / "inputs")
    with pytest.raises(ConfigError, match="0 validation rows to choose by"):
        train(empty, tmp_path, TOO_LONG)


def prepare_without_held_out(folder: Path, target: Path) -> Path:
    from sft_core.token_file import save_tokens

    shutil.copytree(folder, target)
    save_tokens([], target / "validation.parquet")
    return target


def test_the_weights_of_a_checkpoint_are_those_of_its_step(folder: Path, tmp_path: Path) -> None:
    interrupted(folder, tmp_path, 6)
    short = CONFIG.model_copy(update={"max_steps": 4, "lr_scheduler_type": "constant"})
    long = CONFIG.model_copy(update={"lr_scheduler_type": "constant"})
    interrupted(folder, tmp_path / "long", 6, config=long)
    train(folder, tmp_path / "short", short)
    saved = load_file(
        tmp_path / "long" / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors"
    )
    ended = load_file(tmp_path / "short" / "output" / "adapter" / "adapter_model.safetensors")
    assert saved.keys() == ended.keys()
    assert all(torch.equal(saved[name], ended[name]) for name in saved)


def test_a_folder_is_for_one_process_and_goes_after_success(home: Path) -> None:
    def interrupted_inside() -> None:
        with checkpoint_folder("k") as folder:
            (folder / "left").touch()
            raise Interrupted

    with pytest.raises(Interrupted):
        interrupted_inside()
    with checkpoint_folder("k") as folder:
        assert (folder / "left").exists()
        with checkpoint_folder("k") as other:
            assert not other.is_relative_to(home)
        assert (folder / "left").exists()
    assert list((home / "checkpoints").iterdir()) == []
