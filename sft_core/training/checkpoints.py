"""Checkpoints: whole or not there, checked by digest when read, few, and exact when resumed.

`transformers.Trainer` saves and reads the weights, the optimizer, the schedule and the random
state. What it leaves out is added here, so that a resumed run repeats the uninterrupted one number
for number: the loss summed since the last point of the curve, the random state from which the order
of the running epoch was drawn, and the best held-out loss. Its pickled arguments are taken out;
the other pickles are read by torch's `weights_only` loader, which builds tensors and plain values
alone.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from transformers import TrainerCallback

from sft_core.config import TrainingConfig
from sft_core.errors import IntegrityError
from sft_core.store import home, sha256_file, writing

_MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"

_log = logging.getLogger("tunetrail")


@contextmanager
def checkpoint_folder(key: str) -> Iterator[Path]:
    """`checkpoints/KEY` in the home, for this process alone; gone once the block has succeeded.

    `key` is a digest of all that the training depends on, so that what lies there was left behind
    by the same training. Where another process trains the same just now, the block gets a folder
    that nobody resumes from.
    """
    area = home() / "checkpoints"
    with writing(area):
        area.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(area / f"{key}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            _log.info("train: another process trains the same; this one cannot be resumed")
            with tempfile.TemporaryDirectory() as temporary:
                yield Path(temporary)
            return
        try:
            folder = area / key
            folder.mkdir(exist_ok=True)
            yield folder
            shutil.rmtree(folder)
            Path(lock.lock_file).unlink()
        finally:
            lock.release()


class Checkpoints:
    """The checkpoints of one training: folders `checkpoint-STEP`, each with a manifest."""

    def __init__(self, folder: Path, save_total_limit: int) -> None:
        self._folder = folder
        self._limit = save_total_limit
        self.unfinished = folder / "unfinished"
        """Where one is written before it gets its name; what a killed process left there goes."""
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def path(self, step: int) -> Path:
        """Folder of the checkpoint made after a step."""
        return self._folder / f"{_PREFIX}{step}"

    def add(self, made: Path, step: int, best_step: int | None) -> None:
        """Give a written checkpoint its manifest and its name, then remove the oldest.

        `best_step` is the checkpoint with the best held-out loss so far: it stays.
        """
        files = sorted(made.iterdir())
        digests = {file.name: sha256_file(file) for file in files}
        manifest = made / _MANIFEST
        manifest.write_text(json.dumps({"best_step": best_step, "files": digests}, indent=1))
        for path in (*files, manifest, made):
            _flush(path)
        os.rename(made, self.path(step))
        _flush(self._folder)
        keep = {best_step, *self._steps()[-self._limit :]}
        for old in self._steps():
            if old not in keep:
                shutil.rmtree(self.path(old))

    def newest(self) -> tuple[int, Path] | None:
        """Step and folder of the last checkpoint that is whole; damaged ones are removed.

        One is also of no use when the best one, which it counts on, is damaged.
        """
        for step in reversed(self._steps()):
            problem = self._problem(step)
            if problem is None:
                return step, self.path(step)
            _log.warning("train: %s; the checkpoint before it is used", problem)
            shutil.rmtree(self.path(step))
        return None

    def check(self, step: int) -> Path:
        """The folder of a checkpoint.

        Raises:
            IntegrityError: it is gone or damaged.
        """
        if problem := self._problem(step):
            raise IntegrityError(f"train: {problem}. Run again to train from the one before it.")
        return self.path(step)

    def _problem(self, step: int) -> str | None:
        folder = self.path(step)
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            expected, best_step = manifest["files"], manifest["best_step"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{folder.name} has no readable manifest"
        found = {f.name: sha256_file(f) for f in folder.iterdir() if f.name != _MANIFEST}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                return f"{folder.name}/{name} differs from the digest in its manifest"
        return None if best_step in (None, step) else self._problem(best_step)

    def _steps(self) -> list[int]:
        names = (path.name.removeprefix(_PREFIX) for path in self._folder.glob(f"{_PREFIX}*"))
        return sorted(int(name) for name in names if name.isdecimal())


def _flush(path: Path) -> None:
    """Onto the disk, file or folder: a rename is safe once what it names is there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Saver(TrainerCallback):
    """Decides when a trainer saves and stops, and puts back what it forgets when it resumes.

    The best weights are those with the lowest held-out loss after a step; of equal ones the first.
    """

    def __init__(self, trainer: Any, config: TrainingConfig, checkpoints: Checkpoints) -> None:
        self._trainer = trainer
        self._config = config
        self._checkpoints = checkpoints
        self._loop: dict[str, Any] | None = None
        self._epoch_rng = torch.get_rng_state()
        self._best: tuple[int, float] | None = None
        self._num_worse = 0
        self.first_step = 0
        """Step that this process began after."""
        self.first_tokens = 0
        """Real tokens that were seen by then."""

    def train(self) -> Any:
        """Train from the last whole checkpoint, or from the start; returns the trainer's output.

        Raises:
            IntegrityError: the checkpoint with the best weights was damaged meanwhile.
        """
        trainer = self._trainer
        # The first process decides for all: a damaged checkpoint is removed once.
        newest = self._checkpoints.newest() if trainer.is_world_process_zero() else None
        (found,) = broadcast_object_list([newest])
        if found is not None:
            self.first_step, folder = found
            self._loop = torch.load(folder / self._loop_file, weights_only=True)
            self._best, self._num_worse = self._loop["best"], self._loop["num_worse"]
            trainer.args.eval_on_start = False  # that point of the curve is in the checkpoint
            _log.info("train: resumed after step %s", f"{self.first_step:,}")
        result = trainer.train(resume_from_checkpoint=str(folder) if found else None)
        if self.adapter_step != trainer.state.global_step:
            trainer._load_from_checkpoint(str(self._checkpoints.check(self.adapter_step)))
        return result

    @property
    def _loop_file(self) -> str:
        """Each process has its own; the first one's is `loop.pt`."""
        return f"loop{self._trainer.args.process_index or ''}.pt"

    @property
    def adapter_step(self) -> int:
        """Step whose weights are the result."""
        if self._config.load_best_model_at_end and self._best is not None:
            return self._best[0]
        return int(self._trainer.state.global_step)

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Go on with the sums that the trainer starts anew."""
        if self._loop is not None:
            self.first_tokens = int(state.num_input_tokens_seen)
            self._trainer._tr_loss.copy_(self._loop["tr_loss"])
            self._trainer._total_loss_scalar = self._loop["total_loss"]
            self._trainer._globalstep_last_logged = self._loop["last_logged"]
            self._trainer._initial_global_step = 0

    def on_epoch_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """The order of an epoch is drawn now: from the same state as before the interruption."""
        if batches := getattr(self._trainer, "train_batches", None):
            # A resumed trainer does not reach them behind the share of one of several processes.
            batches.set_epoch(int(state.epoch))
        if self._loop is not None:
            torch.set_rng_state(self._loop["epoch_rng"])
            self._loop = None
        self._epoch_rng = torch.get_rng_state()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save inside an epoch."""
        if not _at_epoch_end(state):
            self._save_if_due(state, control)

    def on_epoch_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """At the end of an epoch save after the held-out loss, or it would be missing later."""
        self._save_if_due(state, control)

    def _save_if_due(self, state: Any, control: Any) -> None:
        every = self._config.save_steps
        if every and state.global_step % every == 0 and not control.should_training_stop:
            control.should_save = True

    def on_evaluate(self, _args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the best weights; stop when they have not got better for long enough."""
        if state.global_step == 0:
            return
        loss = float(kwargs["metrics"]["eval_loss"])
        if self._best is None or loss < self._best[1]:
            self._best, self._num_worse = (state.global_step, loss), 0
            # The last weights need no checkpoint: they are at hand.
            if self._config.load_best_model_at_end and not control.should_training_stop:
                control.should_save = True
        else:
            self._num_worse += 1
            if self._num_worse == self._config.early_stopping_patience:
                control.should_training_stop = True
                control.should_save = False

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Complete what the trainer wrote, and put it in its place."""
        made = Path(args.output_dir) / f"{_PREFIX}{state.global_step}"
        loop = {
            "tr_loss": self._trainer._tr_loss.detach().cpu(),
            "total_loss": self._trainer._total_loss_scalar,
            "last_logged": self._trainer._globalstep_last_logged,
            "epoch_rng": torch.get_rng_state() if _at_epoch_end(state) else self._epoch_rng,
            "best": self._best,
            "num_worse": self._num_worse,
        }
        torch.save(loop, made / self._loop_file)
        self._trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            for name in ("training_args.bin", "README.md"):
                (made / name).unlink(missing_ok=True)
            best = self._best[0] if self._best and self._config.load_best_model_at_end else None
            self._checkpoints.add(made, state.global_step, best)
        self._trainer.accelerator.wait_for_everyone()


def _at_epoch_end(state: Any) -> bool:
    return float(state.epoch).is_integer()
