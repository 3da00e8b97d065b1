"""TRL's SFTTrainer with batches by token budget and the loss taken at the labels alone."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from sft_core.layout import IGNORED
from sft_core.training.batches import TokenBatches
from sft_core.training.loss import add_label_loss


def token_lengths(data: Dataset) -> Any:
    """Tokens of each row, as an array, from the offsets of its column: no row is read."""
    return pc.list_value_length(data.data.column("input_ids")).to_numpy()


class LabelTrainer(SFTTrainer):
    """An SFTTrainer for rows with labels, as `save_tokens` wrote them.

    Rows are padded on the right, or stand end to end, told apart by their positions. A step's loss
    is the mean over its labelled tokens, over all its batches and devices. The held-out loss is the
    mean over all labelled tokens. Entropy and accuracy are not taken. A model whose logits are more
    than a product with its head, or which has a loss of its own for its experts, gets TRL's loss,
    and so does one whose weights are shared out (FSDP).
    """

    def __init__(self, *args: Any, max_tokens_per_batch: int | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        peft = self.model if isinstance(self.model, PeftModel) else None
        self._max_tokens = max_tokens_per_batch
        # Virtual tokens of prompt learning come with a mask of their own.
        self._keep_mask = peft is not None and peft.active_peft_config.is_prompt_learning
        # A head that is shared out among processes is whole in its own forward pass alone.
        own_loss = self.aux_loss_enabled or self.is_fsdp_enabled
        self._label_loss = not own_loss and add_label_loss(
            self.model if peft is None else peft.get_base_model()
        )
        self.train_batches = self._batches(self.train_dataset, self.args.train_batch_size)
        self._held_out = torch.zeros(2, dtype=torch.float64)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches whose order follows from the seed and the epoch."""
        return self._loader(self.train_dataset, self.train_batches)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader[Any]:
        """Batches like those of training, in the same order each time."""
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        return self._loader(data, self._batches(data, self.args.eval_batch_size))

    def _batches(self, data: Dataset, max_rows: int) -> TokenBatches:
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        return TokenBatches(
            token_lengths(data),
            max_rows=max_rows,
            max_tokens=self._max_tokens,
            seed=seed,
            num_processes=self.args.world_size,
        )

    def _loader(self, data: Dataset, batches: TokenBatches) -> DataLoader[Any]:
        loader: DataLoader[Any] = self.accelerator.prepare(
            DataLoader(
                data.select_columns(["input_ids", "labels"]),
                batch_sampler=batches,
                collate_fn=self._collate,
                pin_memory=self.args.dataloader_pin_memory,
                num_workers=self.args.dataloader_num_workers,
            )
        )
        return loader

    def _collate(self, rows: list[dict[str, list[int]]]) -> Any:
        """The batch of some rows; without a row, one of padding, which has no loss."""
        if rows:
            return self.data_collator(rows)
        padding = {"input_ids": [self.processing_class.pad_token_id] * 2, "labels": [IGNORED] * 2}
        batch = self.data_collator([padding])
        if "attention_mask" in batch:  # rows end to end have none
            batch["attention_mask"].zero_()
        return batch

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Mean over the labels of the step; `num_items_in_batch` is their number."""
        if return_outputs or not self._label_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        kwargs = {"input_ids": inputs["input_ids"], "labels": labels, "label_loss": True}
        if "position_ids" in inputs:  # rows end to end
            kwargs["position_ids"] = inputs["position_ids"]
        # Padding stands on the right, where a causal model's earlier tokens never look: without a
        # mask they see the same, and attention takes its faster path.
        if self._keep_mask:
            kwargs["attention_mask"] = inputs["attention_mask"]
        total = model(**kwargs)
        if num_items_in_batch is None:
            num_items_in_batch = (labels[:, 1:] != IGNORED).sum()
        if not self.model.training:
            self._held_out += torch.stack([total, num_items_in_batch]).double().cpu()
        loss = total / num_items_in_batch.clamp(min=1)
        # DDP averages gradients over processes, while the number counts the labels of all.
        if self.model.training and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        return loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[None, None, None]:
        """Adds to the held-out loss; batches of several processes differ in size, so upstream could
        not gather them."""
        loss = super().prediction_step(model, inputs, *args, **kwargs)[0]
        count = (inputs["labels"][:, 1:] != IGNORED).sum()
        if not self._label_loss and count > 0:
            self._held_out += torch.stack([loss * count, count]).double().cpu()
        return None, None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """The held-out loss over all labelled tokens, where upstream averages over batches."""
        self._held_out.zero_()
        output = super().evaluation_loop(*args, **kwargs)
        total, count = self.accelerator.reduce(self._held_out.to(self.args.device), "sum")
        prefix = kwargs.get("metric_key_prefix", "eval")
        output.metrics[f"{prefix}_loss"] = float(total / count.clamp(min=1))
        return output
