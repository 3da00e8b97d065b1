"""Cross-entropy at the labels alone, from hidden states, a tile of logits at a time.

Of a row of chat only the answer has labels, and logits are what a model with a large vocabulary
spends most of its time and memory on. A tile of logits is made, turned into its own gradient in
place, and used again for the next, so that memory does not grow with the rows. The gradient is made
in the forward pass: the backward pass makes no logits anew.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor

from sft_core.layout import IGNORED

_TILE_ELEMENTS = {"cpu": 1 << 22}
"""Logits in a tile: 16 MiB in float32 stay within a processor's cache."""
_TILE_ELEMENTS_ON_GPU = 1 << 27


class _LabelLoss(torch.autograd.Function):
    """Sum of the negative log-likelihoods, and its gradients, of `labels` [n] at `hidden` [n, d].

    Products are taken in the autocast type if there is one, all else in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, keep: bool
    ) -> Tensor:
        device = hidden.device.type
        dtype = hidden.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        head = weight.detach().to(dtype)
        states = hidden.detach().to(dtype)
        wanted = [keep and t is not None and t.requires_grad for t in (hidden, weight, bias)]
        of_hidden, of_weight, of_bias = (
            torch.zeros_like(t, dtype=torch.float32) if want else None
            for t, want in zip((hidden, weight, bias), wanted, strict=True)
        )
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = max(1, _TILE_ELEMENTS.get(device, _TILE_ELEMENTS_ON_GPU) // len(head))
        tile = torch.empty(min(rows, len(labels)), len(head), dtype=dtype, device=hidden.device)
        with torch.autocast(device, enabled=False):
            for start in range(0, len(labels), rows):
                part = slice(start, start + rows)
                target = labels[part, None]
                products = torch.mm(states[part], head.t(), out=tile[: len(target)])
                logits = products.float()  # the tile itself where that is float32
                if bias is not None:
                    logits += bias
                logits -= logits.amax(-1, keepdim=True)
                chosen = logits.gather(-1, target)
                sums = logits.exp_().sum(-1, keepdim=True)
                total += (sums.log() - chosen).sum()
                if not any(wanted):
                    continue
                # d loss / d logits = probabilities - one at the label
                logits /= sums
                logits.scatter_add_(-1, target, torch.full_like(chosen, -1.0))
                gradient = logits.to(dtype)
                if of_hidden is not None:
                    of_hidden[part] = gradient @ head
                if of_weight is not None:
                    of_weight += gradient.t() @ states[part]
                if of_bias is not None:
                    of_bias += logits.sum(0)
        ctx.save_for_backward(of_hidden, of_weight, of_bias)
        ctx.dtypes = [None if t is None else t.dtype for t in (hidden, weight, bias)]
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [
            None if kept is None else (kept * outer[0]).to(dtype)
            for kept, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *gradients, None, None


def loss_at_labels(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """Negative log-likelihood in nats, summed over the labels that are not -100; float32 scalar.

    `hidden` is [batch, length, width], `labels` [batch, length] stand at the place of their own
    token, as in the input: the state before a label predicts it. `weight` is [vocabulary, width],
    `bias` [vocabulary]. Without a label the sum is 0, and so are the gradients.
    """
    targets = labels[:, 1:].reshape(-1)
    places = (targets != IGNORED).nonzero().squeeze(-1)
    states = hidden[:, :-1].reshape(-1, hidden.shape[-1]).index_select(0, places)
    total: Tensor = _LabelLoss.apply(states, weight, bias, targets[places], torch.is_grad_enabled())
    return total


def add_label_loss(model: Any) -> bool:
    """Let `model(..., labels=labels, label_loss=True)` return `loss_at_labels`, not logits.

    Called without `label_loss` the model is as it was. False, and nothing is done, where the logits
    are more than a product with the head (scaled or capped), which is seen by trying it on a few
    tokens, and for an encoder with a decoder.
    """
    config = model.config.get_text_config()
    # A cap far above the few logits tried would not be seen.
    capped = getattr(config, "final_logit_softcapping", None) is not None
    if capped or config.is_encoder_decoder or not _head_makes_the_logits(model):
        return False
    original = model.forward

    @functools.wraps(type(model).forward)  # `generate` reads the signature
    def forward(self: Any, *args: Any, label_loss: bool = False, **kwargs: Any) -> Any:
        if not label_loss:
            return original(*args, **kwargs)
        labels = kwargs.pop("labels")
        kwargs["use_cache"] = False
        states = self.base_model(*args, **kwargs).last_hidden_state
        head = self.get_output_embeddings()
        return loss_at_labels(states, head.weight, head.bias, labels)

    model.forward = types.MethodType(forward, model)
    return True


@torch.no_grad()
def _head_makes_the_logits(model: Any) -> bool:
    training = model.training
    head = model.get_output_embeddings()
    ids = torch.arange(4, device=head.weight.device)[None]
    model.eval()
    logits = model(input_ids=ids, use_cache=False).logits
    product = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
    model.train(training)
    return bool(torch.allclose(logits, product.to(logits.dtype), rtol=1e-4, atol=1e-6))
