"""What each row does to the weights of a LoRA adapter, in a few thousand numbers a row.

A row's gradient is that of the summed negative log-likelihood of its labels: what the row adds to a
training step. It is taken at each snapshot of the training and divided by the fourth root of Adam's
second moment, so that a product of two is divided by the square root, as Adam divides its steps. A
random projection that keeps products makes it short, and it is brought to length 1: else the few
rows with the longest gradients are named for every answer. Those of all snapshots are added up.
To weight them by the learning rate was measured, and is no better (docs/attribution.md).

Source: Pruthi et al. (2020), TracIn, section 3.2 (checkpoints); Xia et al. (2024), LESS, section 3
(Adam's update, LoRA gradients, random projection, length 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

from sft_core.errors import ConfigError
from sft_core.evaluation.likelihood import MAX_BATCH_LOGITS, batches, pad_right
from sft_core.layout import IGNORED
from sft_core.training.snapshots import Snapshot

Features = npt.NDArray[np.float32]

_MAX_BATCH_TOKENS = 4_096
_MAX_BATCH_GRADIENTS = 1 << 25
"""128 MiB of float32: a gradient of all weights a row is what most memory goes to."""
_EPSILON = 1e-8
"""That of AdamW as training sets it."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Examples in tokens, and the row that each is of: a long text gives several."""

    input_ids: Sequence[list[int]]
    labels: Sequence[list[int]]
    owners: Sequence[int]
    """Places of the rows, from 0."""

    @property
    def num_rows(self) -> int:
        """Rows that have an example."""
        return max(self.owners, default=-1) + 1


def features(
    model: Any, snapshots: Sequence[Path], rows: Rows, *, projection_dim: int, seed: int
) -> Features:
    """Array (rows, projection_dim): the product of two of its lines is the influence of the rows.

    It is the mean over snapshots of the cosine of their gradients, and lies in [-1, 1] but for the
    error of the projection; a row without a gradient has 0 with all.

    `model` is a base with a LoRA adapter as `with_adapter` made it for the training; its weights
    are those of the last snapshot afterwards. What one call gives can be multiplied with what
    another gives, if snapshots, `projection_dim` and `seed` are the same.

    Raises:
        ConfigError: the model trains other weights than those of LoRA's linear layers.
    """
    layers = linear_layers(model)
    total = torch.zeros(rows.num_rows, projection_dim)
    for place, path in enumerate(snapshots):
        snapshot = Snapshot.read(path)
        model.load_state_dict(snapshot.weights, strict=False)
        moments = [snapshot.second_moments[f"{name}.weight"].flatten() for name in layers]
        scale = (torch.cat(moments).sqrt() + _EPSILON).rsqrt()
        found = torch.zeros_like(total)
        project = Projection(len(scale), projection_dim, (seed, place))
        for chosen, gradients in row_gradients(model, rows.input_ids, rows.labels):
            owners = torch.tensor([rows.owners[i] for i in chosen])
            found.index_add_(0, owners, project(gradients.cpu() * scale))
        total += F.normalize(found) / len(snapshots) ** 0.5
    array: Features = total.numpy()
    return array


def linear_layers(model: Any) -> dict[str, torch.nn.Linear]:
    """The layers that are trained, by name: for LoRA the two factors of each update.

    Raises:
        ConfigError: something else is trained as well.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.weight.requires_grad
    }
    known = {f"{name}.weight" for name in layers}
    other = [n for n, p in model.named_parameters() if p.requires_grad and n not in known]
    if other or not layers:
        raise ConfigError(
            f"attribute: {len(other)} of the trained weights, first {other[:1]}, belong to no "
            "linear layer of LoRA, and gradients row by row are taken of those alone."
        )
    return layers


def row_gradients(
    model: Any, input_ids: Sequence[list[int]], labels: Sequence[list[int]]
) -> Iterator[tuple[list[int], Tensor]]:
    """Places of examples, and their gradients (examples, weights), layers in order of their names.

    An example is put into a batch with others, and its own part is told apart: the gradient of a
    linear layer's weight is the outer product, summed over tokens, of what came back to its output
    and what went into it. The model is in evaluation mode afterwards.
    """
    model.eval()
    layers = linear_layers(model)
    num_weights = sum(layer.weight.numel() for layer in layers.values())
    vocabulary = int(model.config.get_text_config().vocab_size)
    budget = max(1, min(_MAX_BATCH_TOKENS, MAX_BATCH_LOGITS // vocabulary))
    most = max(1, _MAX_BATCH_GRADIENTS // num_weights)
    sizes = [max(len(i), len(j)) for i, j in zip(input_ids, labels, strict=True)]
    for batch in batches(sizes, budget):
        for start in range(0, len(batch), most):
            chosen = batch[start : start + most]
            ids, targets = ([rows[i] for i in chosen] for rows in (input_ids, labels))
            yield chosen, _gradients(model, layers, ids, targets)


def _gradients(
    model: Any,
    layers: dict[str, torch.nn.Linear],
    input_ids: list[list[int]],
    labels: list[list[int]],
) -> Tensor:
    """Gradients (rows, weights) of one batch."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(_: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = args[0].detach(), output

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    try:
        loss = _loss(model, input_ids, labels)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [output for _, output in seen.values()]
    back = dict(zip(seen, torch.autograd.grad(loss, outputs, allow_unused=True), strict=True))
    found = []
    for name, layer in layers.items():
        gradient = back.get(name)
        if gradient is None:
            found.append(torch.zeros(len(input_ids), layer.weight.numel(), device=loss.device))
            continue
        products = torch.einsum("bto,bti->boi", gradient.float(), seen[name][0].float())
        found.append(products.flatten(1))
    return torch.cat(found, dim=1)


def _loss(model: Any, input_ids: list[list[int]], labels: list[list[int]]) -> Tensor:
    """Negative log-likelihood of the labels in nats, summed over a batch."""
    tokens, mask = pad_right(input_ids, 0, model.device)
    targets, _ = pad_right(labels, IGNORED, model.device)
    if model.config.is_encoder_decoder:
        logits = model(input_ids=tokens, attention_mask=mask, labels=targets).logits
    else:
        first = int((targets[:, 1:] != IGNORED).any(0).nonzero()[0])  # no logits for the prompt
        kept = tokens.shape[1] - first
        output = model(input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=kept)
        logits, targets = output.logits[:, :-1], targets[:, first + 1 :]
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


class Projection:
    """Count sketch: each number gets a random sign and is added into one of `dim` random sums.

    Products of two vectors keep their expectation, with a standard deviation of about one
    `sqrt(dim)`th of the product of their lengths.

    Source: Charikar, Chen and Farach-Colton (2002), Finding frequent items in data streams;
    Weinberger et al. (2009), Feature hashing, lemma 2.
    """

    def __init__(self, num_weights: int, dim: int, seed: Sequence[int]) -> None:
        random = np.random.default_rng(seed)
        signs = random.integers(0, 2, num_weights) * 2 - 1
        self._signs = torch.from_numpy(signs.astype(np.float32))
        self._sums = torch.from_numpy(random.integers(0, dim, num_weights))
        self._dim = dim

    def __call__(self, vectors: Tensor) -> Tensor:
        """Array (rows, dim) of an array (rows, weights)."""
        return torch.zeros(len(vectors), self._dim).index_add_(1, self._sums, vectors * self._signs)
