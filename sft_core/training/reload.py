"""The tuned model as somebody else meets it: loaded from its files in a new process.

`python -m sft_core.training.reload` is the new process; `reload_loss` starts it.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch

from sft_core.config import ModelConfig, TrainingConfig
from sft_core.errors import TuneTrailError
from sft_core.new_process import Reply, answer, ask
from sft_core.training.adapters import load_tuned
from sft_core.training.final_loss import final_loss
from sft_core.training.trainer import training_dtype


def reload_loss(
    base_folder: Path,
    adapter_folder: Path,
    tokens: Path,
    model: ModelConfig,
    training: TrainingConfig,
) -> dict[str, Any]:
    """`loss` (nats a token), `num_rows` and `num_tokens` of `final_loss`, in a new process.

    It computes as training did: weights in the same type, on as many threads.

    Raises:
        TuneTrailError: the model cannot be loaded there; the message says why.
    """
    gc.collect()  # what training held on a GPU makes room for the other process
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    request = {
        "base": str(base_folder),
        "adapter": str(adapter_folder),
        "tokens": str(tokens),
        "model": model.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "num_threads": torch.get_num_threads(),
    }
    try:
        return ask("sft_core.training.reload", request)
    except TuneTrailError as error:
        raise TuneTrailError(
            f"reload: the tuned model cannot be used outside the process that trained it, so it is "
            f"no result: {error}"
        ) from error


def _reload(request: Reply) -> Reply:
    torch.set_num_threads(request["num_threads"])
    model, _ = load_tuned(
        Path(request["base"]),
        Path(request["adapter"]),
        ModelConfig.model_validate(request["model"]),
        training_dtype(TrainingConfig.model_validate(request["training"])),
    )
    found = final_loss(model, Path(request["tokens"]))
    return {
        "loss": found.loss,
        "num_rows": len(found.nll),
        "num_tokens": int(found.num_tokens.sum()),
    }


if __name__ == "__main__":
    answer(_reload)
