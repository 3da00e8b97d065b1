"""Stage 9: LoRA fine-tuning with TRL's SFTTrainer."""

from __future__ import annotations

import logging
import os
import tempfile
from functools import partial
from pathlib import Path

from sft_core.config import ModelConfig, TrainingConfig
from sft_core.documents.figures import curve
from sft_core.records import sha256_json
from sft_core.reports import StageReport
from sft_core.store import locate, put_bytes, put_file, put_tree
from tasks.pool import fit_on_pool
from tasks.stage import note_timings, stage

_log = logging.getLogger("tunetrail")


def _log_progress(every: int, numbers: dict[str, float]) -> None:
    """A line for logs at every tenth of the way; people at a terminal see the trainer's bar."""
    step, last = int(numbers["step"]), int(numbers["max_steps"])
    if "loss" in numbers and step * 10 // last != (step - every) * 10 // last:
        _log.info("train: step %s of %s, loss %.4g", f"{step:,}", f"{last:,}", numbers["loss"])


@stage("train")
def train(
    tokens: StageReport, model: ModelConfig, config: TrainingConfig, seed: int
) -> StageReport:
    """An adapter for the base that the tokens were made for.

    Where `TUNETRAIL_TRAIN_DEPLOYMENT` names a deployment, its work pool trains, and else this
    process. Several processes are started and ended in here: to Prefect it is one call.
    """
    from sft_core.new_process import prepared

    if deployment := os.environ.get("TUNETRAIL_TRAIN_DEPLOYMENT"):
        report, timings = fit_on_pool(deployment, tokens, model, config, seed)
    else:
        with prepared("sft_core.training.reload"):  # the next stage asks it
            report, timings = fit(tokens, model, config, seed)
    note_timings(timings)
    return report


def fit(
    tokens: StageReport, model: ModelConfig, config: TrainingConfig, seed: int
) -> tuple[StageReport, dict[str, float]]:
    """Train on this machine; returns the stage's report and the timings.

    What was killed here goes on from its last checkpoint.
    """
    from sft_core.base_model import check_base
    from sft_core.training.checkpoints import checkpoint_folder
    from sft_core.training.processes import train_in_processes
    from sft_core.training.trainer import train_adapter

    base = tokens.models["base"]
    key = checkpoint_key(tokens, model, config, seed)
    work = train_adapter if config.num_processes == 1 else train_in_processes
    with tempfile.TemporaryDirectory() as temporary, checkpoint_folder(key) as checkpoints:
        trained = work(
            check_base(base),
            locate(tokens.private["train"]),
            locate(tokens.private["validation"]),
            config,
            model,
            chat_template=locate(tokens.files["chat_template"]).read_text(encoding="utf-8"),
            seed=seed,
            output=Path(temporary),
            checkpoints=checkpoints,
            on_progress=partial(_log_progress, config.logging_steps),
        )
        adapter = put_tree(trained.adapter, base=base.sha256)
        snapshots = {path.stem: put_file(path) for path in trained.snapshots}
    losses = {name: trained.series.get(name, ()) for name in ("loss", "eval_loss")}
    report = StageReport(
        stage="train",
        metrics=trained.metrics,
        series=trained.series,
        figures={"loss": put_bytes(curve(losses, x="step", y="loss, nats a token"), ".png")},
        models={"base": base, "adapter": adapter},
        private=snapshots,
    )
    return report, trained.timings


def checkpoint_key(
    tokens: StageReport, model: ModelConfig, config: TrainingConfig, seed: int
) -> str:
    """Digest of all that the weights depend on: a checkpoint never resumes another training."""
    contents = [ref.sha256 for ref in tokens.refs()]
    settings = [section.model_dump(mode="json") for section in (model, config)]
    return sha256_json([train.source, contents, settings, seed])
