"""A tuned model in a folder of its own, to be used without TuneTrail."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sft_core.base_model import check_base, load_base
from sft_core.config import ModelConfig
from sft_core.errors import ConfigError, IntegrityError
from sft_core.reports import RunRecord
from sft_core.store import check, locate, writing

_SAMPLE_ROWS = 8
_MERGEABLE = ("LORA", "IA3")
_MAX_DIFFERENCE = 1e-3
"""Largest difference of a logit that rounding in float32 explains; a lost adapter moves more."""


def export(record: RunRecord, folder: Path, *, merge: bool) -> float | None:
    """Write adapter, or with `merge` base and adapter in one, with tokenizer, template and card.

    The folder appears whole or not at all. Returns the largest difference between a logit of the
    merged model, read back from the folder, and of base and adapter; None for an adapter.

    Raises:
        ConfigError: the folder exists, the run made no model, or what it made cannot be merged.
        IntegrityError: what is stored does not match its digest, or the merged model differs.
    """
    if folder.exists():
        raise ConfigError(f"{folder}: exists and was left alone. Name another folder.")
    trained, card = record.report("train"), record.report("model_card")
    if trained is None:
        raise ConfigError(f"run {record.run_id} made no model: it ended before training.")
    adapter = trained.models["adapter"]
    check(adapter)
    with _appearing(folder) as part:
        difference = None
        if merge:
            difference = _merge(record, locate(adapter), part)
        else:
            shutil.copytree(locate(adapter), part, dirs_exist_ok=True)
        for name, ref in {**card.files, **card.figures}.items() if card else ():
            check(ref)
            shutil.copyfile(locate(ref), part / f"{name}{locate(ref).suffix}")
        if exports := record.report("exports"):
            check(exports.files["eval_results"])
            (part / ".eval_results").mkdir()  # where the hub looks for them
            results = locate(exports.files["eval_results"])
            shutil.copyfile(results, part / ".eval_results" / "held_out.yaml")
    return difference


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder beside the one that is wanted, which gets its name when all is written."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".exporting-"))
        try:
            part = temporary / folder.name
            part.mkdir()
            yield part
            part.rename(folder)
        finally:
            shutil.rmtree(temporary)


def _merge(record: RunRecord, adapter: Path, folder: Path) -> float:
    """Base and adapter as one model in float32 safetensors; returns how far its logits are off."""
    import torch

    from sft_core.training.adapters import load_tuned

    trained, tokens = record.report("train"), record.report("tokenize")
    assert trained is not None
    assert tokens is not None
    method = record.config["training"]["peft_type"]
    if method not in _MERGEABLE:
        raise ConfigError(
            f"export: --merge joins {' or '.join(_MERGEABLE)} with its base, and this run trained "
            f"{method}. Export without --merge."
        )
    config = ModelConfig.model_validate(record.config["model"])
    model, tokenizer = load_tuned(check_base(trained.models["base"]), adapter, config)
    check(tokens.private["train"])
    rows = next(pq.ParquetFile(locate(tokens.private["train"])).iter_batches(_SAMPLE_ROWS))
    columns = (rows["input_ids"].to_pylist(), rows["labels"].to_pylist())
    sample = [
        {"input_ids": torch.tensor([ids]), "labels": torch.tensor([labels])}
        for ids, labels in zip(*columns, strict=True)
    ]
    with torch.inference_mode():
        expected = [_logits(model, row) for row in sample]
    model.merge_and_unload(safe_merge=True).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    again, _ = load_base(folder, ModelConfig(model_name_or_path=str(folder)))
    with torch.inference_mode():
        found = [_logits(again, row) for row in sample]
    pairs = zip(found, expected, strict=True)
    difference = max(float((one - other).abs().max()) for one, other in pairs)
    if not difference <= _MAX_DIFFERENCE:
        raise IntegrityError(
            f"export: a logit of the merged model differs by {difference:.3g} from that of base "
            f"and adapter, allowed {_MAX_DIFFERENCE:g}. Nothing was written; export the adapter."
        )
    return difference


def _logits(model: Any, row: dict[str, Any]) -> Any:
    """On the CPU; an encoder-decoder needs the labels to have something to write."""
    return model(**{name: ids.to(model.device) for name, ids in row.items()}).logits.cpu()
