from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sft_core.training import loss as loss_module
from sft_core.training.loss import add_label_loss, loss_at_labels

VOCABULARY, WIDTH = 211, 24
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


def parts(seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, head, bias and labels, of which half are masked."""
    torch.manual_seed(seed)
    labels = torch.randint(0, VOCABULARY, (3, 17))
    labels[torch.rand(3, 17) < 0.5] = -100
    hidden = scale * torch.randn(3, 17, WIDTH)
    return hidden, torch.randn(VOCABULARY, WIDTH), torch.randn(VOCABULARY), labels


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)[:, :-1].flatten(0, 1)
    return cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100, reduction="sum")


def gradients(function: Any, tensors: list[Tensor | None], labels: Tensor) -> list[Tensor]:
    leaves = [None if t is None else t.clone().requires_grad_() for t in tensors]
    value = function(*leaves, labels)
    (value / 7).backward()
    return [value.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


@pytest.mark.parametrize("tile", [1, 5 * VOCABULARY, 1 << 22])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scale", [1.0, 100.0])  # at 100 the probabilities underflow
def test_loss_and_gradients_are_those_of_cross_entropy(
    tile: int, biased: bool, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loss_module._TILE_ELEMENTS, "cpu", tile)
    hidden, weight, bias, labels = parts(scale=scale)
    tensors = [hidden, weight, bias if biased else None]
    ours, theirs = (gradients(f, tensors, labels) for f in (loss_at_labels, plain))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * scale)


def test_frozen_head_gets_no_gradient_and_no_labels_give_zero() -> None:
    hidden, weight, _, labels = parts()
    states = hidden.clone().requires_grad_()
    loss_at_labels(states, weight, None, labels).backward()
    assert weight.grad is None
    states.grad = None
    nothing = loss_at_labels(states, weight, None, torch.full_like(labels, -100))
    nothing.backward()
    assert nothing == 0
    assert states.grad is not None
    assert not states.grad.any()


def test_memory_does_not_grow_with_the_rows() -> None:
    """Beside the states' own gradient a tile is all there is: the logits would be 16 times that."""
    vocabulary = 1 << 16
    rows = 16 * (1 << 22) // vocabulary
    weight = torch.randn(vocabulary, 4)
    hidden = torch.randn(1, rows + 1, 4, requires_grad=True)
    labels = torch.zeros(1, rows + 1, dtype=torch.long)
    with torch.profiler.profile(profile_memory=True) as profile:
        loss_at_labels(hidden, weight, None, labels).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 4 * (1 << 22)


def test_bf16_autocast_is_near_float32() -> None:
    hidden, weight, _, labels = parts()
    exact = gradients(loss_at_labels, [hidden, weight, None], labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = gradients(loss_at_labels, [hidden, weight, None], labels)
    assert rough[0].dtype == torch.float32
    for found, expected in zip(rough, exact, strict=True):
        assert (found - expected).norm() < 0.02 * expected.norm()


def test_model_returns_it() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    ids = torch.randint(0, VOCABULARY, (2, 9))
    labels = ids.clone()
    labels[0, 4:] = -100
    logits = model(ids).logits
    assert add_label_loss(model)
    assert torch.equal(model(ids).logits, logits)
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    found = model(ids, labels=labels, label_loss=True)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=8.0)),
        Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=12, num_key_value_heads=2)),
        T5ForConditionalGeneration(T5Config(vocab_size=99, d_model=8, num_layers=1, num_heads=2)),
    ],
    ids=["scaled logits", "capped logits", "encoder with decoder"],
)
def test_model_whose_logits_are_more_than_a_product_is_left_alone(model: Any) -> None:
    assert not add_label_loss(model)
    assert "forward" not in vars(model)


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    """Padded on the right and without a mask, as the trainer feeds them."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    add_label_loss(model)
    rows = [torch.randint(0, VOCABULARY, (n,)) for n in (30, 27, 12, 2)]
    collate = DataCollatorForLanguageModeling(pad_token_id=3)
    batch = collate([{"input_ids": row.tolist(), "labels": row.tolist()} for row in rows])
    with torch.no_grad():
        together = model(batch["input_ids"]).logits
        for place, row in enumerate(rows):
            alone = model(row[None]).logits[0]
            torch.testing.assert_close(together[place, : len(row)], alone, rtol=1e-4, atol=1e-4)
        total = model(batch["input_ids"], labels=batch["labels"], label_loss=True)
        single = [model(row[None], labels=row[None], label_loss=True) for row in rows]
    assert total.item() == pytest.approx(sum(single).item(), rel=1e-5)
