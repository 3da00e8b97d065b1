"""A random Llama of 20,000 parameters and a tokenizer whose tokens are the 256 bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from sft_core.config import ModelConfig
from sft_core.records import Message, Record
from sft_core.token_file import save_tokens
from sft_core.tokenization import tokenize_records

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>")
ROOT = Path(__file__).parents[2]
STORIES = ROOT.parent / "shared" / "models" / "stories260K"
DEMO = ROOT / "examples" / "triage" / "base"
CONTEXT = 128


def byte_tokenizer(template: str | None = CHATML, **tokens: str) -> PreTrainedTokenizerFast:
    """A token a byte; end-of-turn is `<|im_end|>`, end-of-text another token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only,
        extra_special_tokens=list(SPECIAL),
        **{"eos_token": SPECIAL[0], **tokens},
    )
    tokenizer.chat_template = template
    return tokenizer


def write_base(folder: Path, tokenizer: PreTrainedTokenizerFast, scale: float = 4.0) -> ModelConfig:
    """Save a base whose weights follow from a fixed seed; returns the config that names it."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(**_shape(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    )
    with torch.no_grad():
        model.model.norm.weight *= scale
    return _save(model, tokenizer, folder)


def write_granite(folder: Path, tokenizer: PreTrainedTokenizerFast) -> ModelConfig:
    """The same of a base that scales its logits: they are more than a product with the head."""
    torch.manual_seed(0)
    model = GraniteForCausalLM(
        GraniteConfig(**_shape(tokenizer), logits_scaling=0.25, bos_token_id=None)
    )
    return _save(model, tokenizer, folder)


def write_t5(folder: Path, tokenizer: PreTrainedTokenizerFast) -> ModelConfig:
    """An encoder with a decoder, which starts with `<s>`, the token that pads as well."""
    torch.manual_seed(0)
    start = tokenizer.convert_tokens_to_ids("<s>")
    settings = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=start,
        pad_token_id=start,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _save(T5ForConditionalGeneration(settings), tokenizer, folder)


def _shape(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.1,
    }


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> ModelConfig:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelConfig(model_name_or_path=str(folder))


def stored_base(folder: Path) -> ModelConfig:
    """A base that lies on disk; the test is skipped, and says so, where it does not."""
    if not (folder / "config.json").is_file():
        pytest.skip(f"{folder.name} is not here")
    return ModelConfig(model_name_or_path=str(folder))


def chat(*contents: str, system: str | None = None) -> list[Message]:
    """User and assistant by turns."""
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)
    ]
    return [{"role": "system", "content": system}, *turns] if system else turns


def record(row: int, *contents: str) -> Record:
    """A record whose `row_id` begins with its row number."""
    return Record(row, f"{row:012d}".ljust(64, "f"), chat(*contents))


def save_rows(records: list[Record], path: Path) -> Path:
    """Tokens of the records for the byte tokenizer with ChatML."""
    save_tokens(tokenize_records(records, byte_tokenizer(), CHATML, CONTEXT), path)
    return path
