"""Several processes train what one trains with so many times the accumulation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from sft_core.config import LoraSection, TrainingConfig
from sft_core.errors import ConfigError, ProcessError, TuneTrailError
from sft_core.training.processes import check_devices
from tests.sft_core.tiny_model import CHATML, byte_tokenizer, write_base, write_granite
from tests.sft_core.training.interrupted import CONFIG, prepare, train

# 22 rows in batches of 2: 11 batches, so that the second process gets an empty one, and the last of
# the 3 steps of an epoch is smaller than the others.
ONE = CONFIG.model_copy(
    update={"gradient_accumulation_steps": 4, "save_steps": 2, "lora": LoraSection(r=4)}
)
TWO = ONE.model_copy(update={"gradient_accumulation_steps": 2, "num_processes": 2})
DROPOUT = TWO.model_copy(update={"lora": CONFIG.lora, "num_train_epochs": 9.0})
"""Long enough that its processes are still at work when they are looked for."""
ROUNDING = 1e-5
"""Sums of float32 in another order; measured after nine steps: 1e-7."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield prepare(tmp_path_factory.mktemp("inputs"))
    torch.set_num_threads(threads)


def link_rows(folder: Path, target: Path) -> None:
    for name in ("train.parquet", "validation.parquet"):
        (target / name).symlink_to(folder / name)


def workers(work: Path) -> list[psutil.Process]:
    """The processes that train there now, whoever started them."""
    wanted = ["sft_core.training.worker", str(work / "output" / "request.json")]
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if (process.info["cmdline"] or [])[-2:] == wanted]


def at_step(step: int, what: Callable[[], None]) -> Callable[[dict[str, float]], None]:
    def on_progress(numbers: dict[str, float]) -> None:
        if numbers["step"] == step:
            what()

    return on_progress


def assert_same_trajectory(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one["series"].keys() == two["series"].keys()
    for name, curve in one["series"].items():
        steps, values = zip(*curve, strict=True)
        other_steps, others = zip(*two["series"][name], strict=True)
        assert steps == other_steps
        assert others == pytest.approx(values, rel=ROUNDING), name
    for name in ("num_steps", "num_train_tokens", "num_trainable_parameters", "padding_rate"):
        assert one["metrics"][name] == two["metrics"][name]
    assert two["metrics"]["train_loss"] == pytest.approx(one["metrics"]["train_loss"], ROUNDING)
    assert two["metrics"]["final_loss"] == pytest.approx(one["metrics"]["final_loss"], ROUNDING)


@pytest.mark.slow
def test_two_processes_match_one_with_twice_the_accumulation(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    one, two = train(folder, tmp_path / "one", ONE), train(folder, tmp_path / "two", TWO)
    assert one["metrics"]["num_steps"] == 9
    assert_same_trajectory(one, two)
    assert workers(tmp_path / "two") == []
    saved = list((tmp_path / "two" / "output").rglob("adapter_model.safetensors"))
    assert len(saved) == 1


@pytest.mark.slow
def test_so_do_they_with_a_loss_that_is_not_ours(folder: Path, tmp_path: Path) -> None:
    """Logits of Granite are scaled, so that TRL's loss stands in, also for the empty batch."""
    link_rows(folder, tmp_path)
    write_granite(tmp_path / "base", byte_tokenizer())
    one, two = train(tmp_path, tmp_path / "one", ONE), train(tmp_path, tmp_path / "two", TWO)
    assert_same_trajectory(one, two)


@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_the_next_run_goes_on(
    folder: Path, home: Path, tmp_path: Path
) -> None:
    """With dropout, each process on its own random numbers, in the midst of an epoch."""

    def kill() -> None:
        _, second = workers(tmp_path / "work")
        second.kill()

    whole = train(folder, tmp_path / "whole", DROPOUT)
    started = time.monotonic()
    with pytest.raises(ProcessError, match=r"process \d of 0 to 1 was ended by SIGKILL") as error:
        train(folder, tmp_path / "work", DROPOUT, on_progress=at_step(6, kill))
    assert time.monotonic() - started < 120
    assert workers(tmp_path / "work") == []
    (log,) = (home / "logs").iterdir()
    assert str(log) in str(error.value)
    found = train(folder, tmp_path / "work", DROPOUT)
    assert found["timings"]["resumed_after_step"] >= 4
    for name in ("adapter", "metrics", "series"):
        assert found[name] == whole[name], name


@pytest.mark.slow
def test_an_error_of_ours_crosses_over_once(folder: Path, tmp_path: Path) -> None:
    link_rows(folder, tmp_path)
    write_base(tmp_path / "base", byte_tokenizer(), scale=1e30)
    with pytest.raises(
        TuneTrailError, match=r"is (nan|inf) at step \d.*training\.learning_rate"
    ) as e:
        train(tmp_path, tmp_path / "work", TWO)
    assert type(e.value) is TuneTrailError
    assert workers(tmp_path / "work") == []


class CalledOff(BaseException):
    pass


@pytest.mark.slow
def test_calling_it_off_ends_all(folder: Path, tmp_path: Path) -> None:
    def call_off() -> None:
        assert len(workers(tmp_path)) == 2
        raise CalledOff

    with pytest.raises(CalledOff):
        train(folder, tmp_path, TWO, on_progress=at_step(3, call_off))
    assert workers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.fresh_python  # every process must be a child of the one that ends
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_nothing_outlives_who_asked_for_it(number: int, folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.sft_core.training.interrupted import train\n"
        "from tests.sft_core.training.test_processes import TWO\n"
        "long = TWO.model_copy(update={'num_train_epochs': 900, 'logging_steps': 1})\n"
        "train(Path(sys.argv[1]), Path(sys.argv[2]), long, on_progress=print)\n"
    )
    command = [sys.executable, "-u", "-c", code, str(folder), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert "'step'" in parent.stdout.readline()
    descendants = psutil.Process(parent.pid).children(recursive=True)
    assert len(workers(tmp_path)) == 2
    os.kill(parent.pid, number)
    parent.wait()
    _, alive = psutil.wait_procs(descendants, timeout=30)
    assert alive == []
    parent.stdout.close()


def test_what_this_machine_cannot_do() -> None:
    check_devices(TWO)
    if torch.cuda.is_available():
        many = torch.cuda.device_count() + 1
        with pytest.raises(ConfigError, match=f"num_processes is {many}, and this machine has"):
            check_devices(TrainingConfig(num_processes=many))
    else:
        with pytest.raises(ConfigError, match=r"training\.fsdp: needs a GPU for each process"):
            check_devices(TrainingConfig(num_processes=2, fsdp=True))
    with pytest.raises(ValidationError, match="nobody to share weights with"):
        TrainingConfig(fsdp=True)


@pytest.mark.slow
def test_shared_weights_train_to_the_same_curve(folder: Path, tmp_path: Path) -> None:
    """FSDP, in processes that torch starts for us because `check_devices` refuses them."""
    sharded = TWO.model_copy(update={"fsdp": True})
    values = {
        **{f"{name}_tokens": str(folder / f"{name}.parquet") for name in ("train", "validation")},
        "base_folder": str(folder / "base"),
        "config": sharded.model_dump(mode="json"),
        "model_config": {"model_name_or_path": str(folder / "base")},
        "chat_template": CHATML,
        "seed": 7,
        "output": str(tmp_path),
        "checkpoints": str(tmp_path / "checkpoints"),
        "num_threads": 1,
    }
    request = tmp_path / "request.json"
    request.write_text(json.dumps(values))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    module = ["-m", "tests.sft_core.training.sharded", str(request)]
    with subprocess.Popen(
        command + module, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        messages = [json.loads(line) for line in process.stdout]
        assert process.wait() == 0
    (found,) = [message["result"] for message in messages if "result" in message]
    one = train(folder, tmp_path / "one", ONE)
    assert_same_trajectory(one, found)
    other = load_file(tmp_path / "one" / "output" / "adapter" / "adapter_model.safetensors")
    weights = load_file(Path(found["adapter"]) / "adapter_model.safetensors")
    assert weights.keys() == other.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, other[name], rtol=1e-4, atol=1e-6)
