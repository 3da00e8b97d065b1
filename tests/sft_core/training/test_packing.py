"""Rows that share a sequence do not see each other, or are not packed at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, T5Config, T5ForConditionalGeneration

from sft_core.base_model import load_tokenizer
from sft_core.config import ModelConfig, TokenizationConfig, TrainingConfig
from sft_core.errors import ConfigError
from sft_core.token_file import load_tokens, save_tokens
from sft_core.tokenization import chat_template, tokenize_records
from sft_core.training.packing import check_packing
from sft_core.training.trainer import Training, build_trainer, train_adapter
from tests.sft_core.tiny_model import (
    CHATML,
    DEMO,
    STORIES,
    byte_tokenizer,
    record,
    save_rows,
    stored_base,
    write_base,
)

RECORDS = [record(i, "who " * (1 + i % 4), "it is " * (1 + i % 3), "x", "y" * i) for i in range(12)]


def model_named(name: str, folder: Path) -> ModelConfig:
    if name == "tiny":
        return write_base(folder / "base", byte_tokenizer())
    return stored_base({"demo": DEMO, "stories260K": STORIES}[name])


@pytest.mark.parametrize("name", ["tiny", "demo", "stories260K"])
def test_logits_of_a_packed_row_are_those_of_the_row_alone(name: str, tmp_path: Path) -> None:
    model = model_named(name, tmp_path)
    base = Path(model.model_name_or_path)
    tokenizer = load_tokenizer(base, model)
    template = chat_template(tokenizer, TokenizationConfig())
    path = tmp_path / "train.parquet"
    save_tokens(tokenize_records(RECORDS, tokenizer, template, 128), path)
    trainer: Any
    trainer, _ = build_trainer(
        base,
        load_tokens(path, tmp_path),
        None,
        TrainingConfig(packing=True),
        model,
        chat_template=template,
        seed=0,
        output=tmp_path / "work",
    )
    loader = trainer.get_train_dataloader()
    rows = [loader.dataset[i] for i in (3, 0, 7)]
    batch = loader.collate_fn(rows)
    lengths = [len(row["input_ids"]) for row in rows]
    assert batch["input_ids"].shape == (1, sum(lengths))
    network = trainer.model.eval()

    def logits(ids: torch.Tensor, **positions: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return network(input_ids=ids, use_cache=False, **positions).logits[0]

    alone = [logits(torch.tensor([row["input_ids"]])) for row in rows]
    packed = logits(batch["input_ids"], position_ids=batch["position_ids"]).split(lengths)
    seen = logits(batch["input_ids"]).split(lengths)
    for expected, found in zip(alone, packed, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # Without positions that begin anew the second row does see the first.
    assert (seen[1] - alone[1]).abs().max() > 0.01


def trained(folder: Path, **values: Any) -> Training:
    model = write_base(folder / "base", byte_tokenizer())
    path = save_rows(RECORDS, folder / "train.parquet")
    return train_adapter(
        folder / "base",
        path,
        path,
        TrainingConfig(
            num_train_epochs=3, per_device_train_batch_size=4, logging_steps=1, **values
        ),
        model,
        chat_template=CHATML,
        seed=0,
        output=folder / "work",
    )


def test_packed_training_is_the_padded_one(tmp_path: Path) -> None:
    padded = trained(tmp_path / "padded")
    packed = trained(tmp_path / "packed", packing=True)
    assert padded.metrics["padding_rate"] > 0.01
    assert packed.metrics["padding_rate"] == 0.0
    same = ("num_steps", "num_train_tokens")
    assert [packed.metrics[k] for k in same] == [padded.metrics[k] for k in same]
    for name in ("loss", "eval_loss", "grad_norm"):
        expected = [value for _, value in padded.series[name]]
        assert [value for _, value in packed.series[name]] == pytest.approx(expected, rel=1e-3)


def test_positions_that_do_not_count_are_refused() -> None:
    torch.manual_seed(0)
    # Bloom takes its positions from the attention mask.
    bloom = BloomForCausalLM(
        BloomConfig(vocab_size=64, hidden_size=32, n_layer=1, n_head=2, initializer_range=0.2)
    ).eval()
    with pytest.raises(ConfigError, match=r"^training\.packing: .*Set it to false"):
        check_packing(bloom)


def test_sequence_to_sequence_is_refused() -> None:
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ).eval()
    with pytest.raises(ConfigError, match="reads each row by itself"):
        check_packing(t5)


@pytest.mark.parametrize("method", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_virtual_tokens_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match="virtual tokens stand before a sequence"):
        TrainingConfig(packing=True, peft_type=method)
