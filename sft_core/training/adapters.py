"""The adapter: put on a base by PEFT, saved without anything else beside it, and loaded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_core.base_model import load_base, load_tokenizer
from sft_core.config import ModelConfig, TrainingConfig
from sft_core.errors import ModelError, TuneTrailError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def with_adapter(
    model: Any, config: TrainingConfig, model_config: ModelConfig, seed: int
) -> PeftModel:
    """The model with a fresh adapter, whose weights follow from the seed."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    modules = config.lora.target_modules
    set_seed(seed)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            base_model_name_or_path=model_config.model_name_or_path,
            r=config.lora.r,
            lora_alpha=config.lora.lora_alpha,
            lora_dropout=config.lora.lora_dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
        ),
    )


def save_adapter(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Weights, config, tokenizer and template: no card, no checkpoint, no pickle, no local path.

    Raises:
        TuneTrailError: a weight is not a finite number.
    """
    if not all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad):
        raise TuneTrailError(
            "train: the adapter holds weights that are not finite numbers. Lower "
            "training.learning_rate or training.max_grad_norm."
        )
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    settings = folder / "adapter_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    # PEFT writes its set of modules in an order that changes from process to process.
    if isinstance(values["target_modules"], list):
        values["target_modules"].sort()
    settings.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(str(folder))
    return folder


def load_tuned(
    base_folder: Path,
    adapter_folder: Path,
    model_config: ModelConfig,
    dtype: torch.dtype | None = None,
) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Base with its adapter, in evaluation mode, and the tokenizer with the template that trained.

    The base is in float32 unless told otherwise.

    `with model.disable_adapter():` gives the base model.

    Raises:
        ModelError: the adapter is missing, damaged, pickled, or made for another model.
    """
    from peft import PeftModel

    if not (adapter_folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter_folder.name}: holds no adapter_model.safetensors.")
    model, _ = load_base(base_folder, model_config, dtype)
    try:
        tuned = PeftModel.from_pretrained(model, str(adapter_folder), local_files_only=True)
    except Exception as error:  # safetensors and PEFT raise many kinds
        raise ModelError(
            f"{adapter_folder.name}: the adapter cannot be put on {model_config.model_name_or_path}"
            f" ({type(error).__name__}). Train it again."
        ) from error
    return tuned.eval(), load_tokenizer(adapter_folder, model_config)
