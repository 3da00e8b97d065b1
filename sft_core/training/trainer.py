"""Fine-tuning: `trl.SFTTrainer` over tokens that are masked already, and a clean adapter.

What was masked on disk is what trains: the trainer's own preparation, which cuts and drops rows, is
skipped. TRL and PEFT are imported when training starts, because that takes seconds.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from sft_core.base_model import load_base
from sft_core.config import ModelConfig, TrainingConfig
from sft_core.errors import ConfigError, DataError, IntegrityError, TuneTrailError
from sft_core.token_file import load_tokens
from sft_core.training.adapters import (
    check_method,
    parameter_counts,
    save_adapter,
    with_adapter,
)
from sft_core.training.checkpoints import Checkpoints, Saver
from sft_core.training.final_loss import final_loss, final_tokens
from sft_core.training.packing import check_packing
from sft_core.training.snapshots import Snapshots

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback


Series = tuple[tuple[int, float], ...]
_CURVES = ("loss", "learning_rate", "grad_norm", "eval_loss")
_DIVERGED = 3.0
"""A loss so many times the first one, and above that of guessing (ln of the vocabulary's size),
is no longer learning."""


@dataclass(frozen=True)
class Training:
    """What training made and measured.

    `metrics` and `series` follow from the inputs alone and repeat; `timings` do not, and stay out
    of reports.
    """

    adapter: Path
    """Folder with adapter_model.safetensors, adapter_config.json, tokenizer and chat template, or
    with a whole model in place of the adapter."""
    metrics: dict[str, float]
    """`final_loss` is the trained model's own, as `final_loss.final_loss` takes it."""
    series: dict[str, Series]
    """Curves by step: loss, learning_rate, grad_norm, and eval_loss from step 0 on."""
    snapshots: tuple[Path, ...]
    """Files of `snapshots.Snapshots`, of the steps up to that of the adapter."""
    timings: dict[str, float]
    """Of this process alone, which began after the step resumed_after_step: train_seconds,
    eval_seconds, and real (unpadded) tokens_per_second of training."""


def train_adapter(
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
    """Fit an adapter, or all weights, to the labels of `train_tokens`, a file of `save_tokens`.

    The held-out loss is taken before the first step and after each epoch. On a CPU in float32 the
    same inputs give the same bytes. Called by each of several processes of a process group, it
    trains one model in all of them, and the first saves it. `on_progress` gets step, max_steps,
    epoch and whatever was logged at that step. Everything written lies in `output`, but for the
    checkpoints, where a folder is given for them: what an interrupted training of the same inputs
    left there is gone on with, and the result is the same.

    Raises:
        ConfigError: as `build_trainer`.
        DataError: there is no row to train on.
        IntegrityError: the checkpoint with the best weights was damaged meanwhile.
        TuneTrailError: the loss or a weight is no longer a finite number, or training diverged.
    """
    train_data = load_tokens(train_tokens, output / "train")
    held_out = load_tokens(validation_tokens, output / "validation") if validation_tokens else None
    if len(train_data) == 0:
        raise DataError("train: there are 0 rows to train on. See the ledger for what took them.")
    if config.load_best_model_at_end and not held_out:
        raise ConfigError(
            "training.load_best_model_at_end: there are 0 validation rows to choose by. Raise "
            "split.validation_rate or set it to false."
        )
    folder = checkpoints or output / "checkpoints"
    kept = Checkpoints(folder, config.save_total_limit)
    trainer, tokenizer = build_trainer(
        base_folder,
        train_data,
        held_out,
        config,
        model_config,
        chat_template=chat_template,
        seed=seed,
        output=output,
        unfinished=kept.unfinished,
        callbacks=[_watch(on_progress)],
    )
    saver = Saver(trainer, config, kept)
    trainer.add_callback(saver)
    snapshots = Snapshots(trainer, config, folder / "snapshots")
    trainer.add_callback(snapshots)
    if rank := trainer.args.process_index:
        torch.manual_seed(seed + rank)  # each process drops out other units
    result = saver.train()
    _check_equal(trainer)
    adapter = output / "adapter"
    weights = _whole_weights(trainer.model) if config.fsdp else None
    if trainer.is_world_process_zero():
        save_adapter(trainer.model, tokenizer, adapter, output / "initial", weights)
    plain = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    final = final_loss(plain, final_tokens(train_tokens, validation_tokens))
    trainable, total = parameter_counts(trainer.model)
    state = trainer.state
    eval_seconds = sum(
        entry.get("eval_runtime", 0.0)
        for entry in state.log_history
        if entry["step"] > saver.first_step or saver.first_step == 0
    )
    train_seconds = max(result.metrics["train_runtime"] - eval_seconds, 1e-9)
    return Training(
        adapter=adapter,
        metrics={
            "num_steps": float(state.global_step),
            "adapter_step": float(saver.adapter_step),
            "num_train_tokens": float(state.num_input_tokens_seen),
            "bf16": float(trains_in_bf16(config)),
            **_padding(trainer, config.packing),
            "train_loss": float(result.training_loss),
            "final_loss": final.loss,
            "total_flops": float(state.total_flos),
            "num_trainable_parameters": float(trainable),
            "trainable_rate": trainable / total,
        },
        series=_series(state.log_history),
        snapshots=snapshots.files(saver.adapter_step),
        timings={
            "train_seconds": train_seconds,
            "eval_seconds": eval_seconds,
            "tokens_per_second": (state.num_input_tokens_seen - saver.first_tokens) / train_seconds,
            "resumed_after_step": float(saver.first_step),
        },
    )


def build_trainer(
    base_folder: Path,
    train_data: Dataset,
    held_out: Dataset | None,
    config: TrainingConfig,
    model_config: ModelConfig,
    *,
    chat_template: str,
    seed: int,
    output: Path,
    unfinished: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[Trainer, PreTrainedTokenizerBase]:
    """The trainer with base, fresh adapter, collator and sampler, and the tokenizer.

    Whoever wants to know what training does asks this one: there is no second way to batch. The
    trainer itself writes to `unfinished`, or without it to `output`.

    Raises:
        ConfigError: PEFT or TRL refuse a setting, or the method does not go with the base.
    """
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # read once, at import
    check_method(base_folder, model_config, config)
    model, tokenizer = load_base(base_folder, model_config, training_dtype(config))
    tokenizer.chat_template = chat_template
    if config.packing:
        check_packing(model)
    try:
        trainer = _trainer(
            model=with_adapter(model, config, model_config, seed, output / "initial"),
            args=_arguments(config, seed, unfinished or output, evaluate=bool(held_out)),
            processing_class=tokenizer,
            train_dataset=train_data,
            eval_dataset=held_out or None,
            data_collator=_collator(model, tokenizer, config.packing),
            callbacks=list(callbacks),
            max_tokens_per_batch=config.max_tokens_per_batch,
        )
    except ValueError as error:
        raise ConfigError(f"training: {error}") from error
    return trainer, tokenizer


def _whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """Weights that are shared out among processes, put together in the first one."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, torch.Tensor] = get_model_state_dict(model, options=options)
    return weights


def _check_equal(trainer: Trainer) -> None:
    """After the same updates all processes hold the same weights, to the byte.

    Raises:
        IntegrityError: they do not.
    """
    if trainer.args.world_size == 1 or trainer.is_fsdp_enabled:
        return
    digest = hashlib.sha256()
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    found = gather_object([digest.hexdigest()])
    if len(set(found)) > 1:
        raise IntegrityError(
            f"train: the {len(found)} processes hold {len(set(found))} different sets of weights, "
            "so one of them computes wrongly. Check the hardware, or set training.num_processes: 1."
        )


def _padding(trainer: Trainer, packing: bool) -> dict[str, float]:
    """Share of padding; a plain Trainer makes up its batches on the way."""
    batches = getattr(trainer, "train_batches", None)
    if batches is None:
        return {}
    return {"padding_rate": 0.0 if packing else batches.padding_rate()}


def trains_in_bf16(config: TrainingConfig) -> bool:
    """Whether training is in bfloat16 on this machine: as configured, or where a GPU has it."""
    if config.bf16 == "auto":
        return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    return config.bf16


def training_dtype(config: TrainingConfig) -> torch.dtype:
    """Type of the base's weights: bfloat16 on a GPU that trains an adapter in it, else float32.

    Small updates of bfloat16 weights round away: what is trained as a whole stays in float32.
    """
    frozen = config.peft_type != "NONE"
    use_bf16 = trains_in_bf16(config) and torch.cuda.is_available() and frozen
    return torch.bfloat16 if use_bf16 else torch.float32


def _arguments(config: TrainingConfig, seed: int, output: Path, *, evaluate: bool) -> Any:
    """Everything that the trainer would else decide by itself is stated."""
    from trl import SFTConfig

    on_gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        per_device_train_batch_size=config.per_device_train_batch_size,
        per_device_eval_batch_size=config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.logging_steps,
        bf16=trains_in_bf16(config),
        activation_checkpointing=config.gradient_checkpointing,  # its new name
        loss_type="nll",
        packing=False,  # ours is the collator's
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",  # where the batches are not ours
        eval_strategy="epoch" if evaluate else "no",
        eval_on_start=evaluate,
        save_strategy="no",  # `Saver` says when
        report_to="none",
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="all" if config.packing else "non_padding",
        disable_tqdm=not sys.stderr.isatty(),
        dataloader_pin_memory=on_gpu,
        use_cpu=not on_gpu,
        ddp_backend=None if on_gpu or config.num_processes == 1 else "gloo",
        ddp_find_unused_parameters=False,
        fsdp="full_shard" if config.fsdp else None,
        seed=seed,
        data_seed=seed,
    )


def _collator(model: Any, tokenizer: PreTrainedTokenizerBase, packing: bool) -> Any:
    """Pads a batch or, packing, puts its rows end to end.

    Labels of a sequence-to-sequence model have a length of their own.
    """
    from transformers import DataCollatorForSeq2Seq
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    if model.config.is_encoder_decoder:
        return DataCollatorForSeq2Seq(tokenizer, model=model)
    return DataCollatorForLanguageModeling(
        pad_token_id=tokenizer.pad_token_id, padding_free=packing
    )


def _trainer(max_tokens_per_batch: int | None, **parts: Any) -> Trainer:
    """SFTTrainer, which knows causal models alone, or the Trainer that it is made from."""
    from transformers import PrinterCallback, ProgressCallback, Trainer

    from sft_core.training.sft_trainer import LabelTrainer

    if parts["model"].config.is_encoder_decoder:
        trainer = Trainer(**parts)
    else:
        trainer = LabelTrainer(max_tokens_per_batch=max_tokens_per_batch, **parts)
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(_bar())
    return trainer


def _bar() -> TrainerCallback:
    """The bar with steps and time left; what is logged stands at its end, not on lines above it."""
    from transformers import ProgressCallback

    class Bar(ProgressCallback):
        def on_log(self, _args: Any, _state: Any, _control: Any, **kwargs: Any) -> None:
            if self.training_bar is not None and "loss" in kwargs["logs"]:
                self.training_bar.set_postfix(loss=f"{kwargs['logs']['loss']:.4g}")

    return Bar()


def _watch(on_progress: Callable[[dict[str, float]], None] | None) -> TrainerCallback:
    """Ends a run that diverged, and tells how far it is."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_log(self, _args: Any, state: Any, _control: Any, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            for name in _CURVES:
                if not math.isfinite(logs.get(name, 0.0)):
                    raise TuneTrailError(
                        f"train: {name} is {logs[name]} at step {state.global_step} of "
                        f"{state.max_steps}. Lower training.learning_rate or "
                        "training.max_grad_norm, or set training.bf16: false."
                    )
            for name in ("loss", "eval_loss"):
                first = next((e[name] for e in state.log_history if name in e), math.inf)
                vocabulary = kwargs["model"].config.get_text_config().vocab_size
                limit = max(_DIVERGED * first, math.log(vocabulary))
                if logs.get(name, 0.0) > limit:
                    raise TuneTrailError(
                        f"train: {name} is {logs[name]:.4g} at step {state.global_step} of "
                        f"{state.max_steps}, it was {first:.4g} at first: training diverged. Lower "
                        "training.learning_rate or training.max_grad_norm."
                    )
            if on_progress is not None:
                numbers = {k: float(v) for k, v in logs.items() if isinstance(v, int | float)}
                place = {"step": float(state.global_step), "max_steps": float(state.max_steps)}
                on_progress(place | numbers)

    return Watch()


def _series(log_history: list[dict[str, float]]) -> dict[str, Series]:
    """Curves of what the trainer logged, by step; one without a point is left out."""
    curves = {
        name: tuple((int(e["step"]), float(e[name])) for e in log_history if name in e)
        for name in _CURVES
    }
    return {name: points for name, points in curves.items() if points}
