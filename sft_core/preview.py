"""What training would see and take: rows through the collator that trains, and a rehearsal.

`python -m sft_core.preview` is the process that loads the base and tries some steps; `preview` asks
it. A process of its own has a peak of its own, and may run out of memory without harm.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from sft_core.base_model import check_base
from sft_core.config import PipelineConfig
from sft_core.conversation import template_source
from sft_core.errors import DataError, ProcessError
from sft_core.layout import CAUSAL, IGNORED, SEQ2SEQ
from sft_core.new_process import Reply, answer, ask
from sft_core.reports import DatasetRef, Frozen, StageReport
from sft_core.store import locate, read_records
from sft_core.tokenization import end_of_turn_id, special_ids, tokenize_records
from sft_core.training.estimate import Estimate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BINS = 12


class Span(Frozen):
    """Neighbouring tokens that all have loss, or all have none; their texts, one a token."""

    trained: bool
    texts: tuple[str, ...]


class PreviewRow(Frozen):
    """An example as it leaves the collator."""

    row: int
    row_id: str
    num_tokens: int
    num_trained: int
    num_cut: int
    """Tokens that were cut from its end."""
    spans: tuple[Span, ...]


class SpecialToken(Frozen):
    """A token that the template or the trainer uses."""

    role: str
    text: str
    id: int


class Bin(Frozen):
    """Rows of `first` to `last` tokens."""

    first: int
    last: int
    num_rows: int


class Preview(Frozen):
    """Everything that `tunetrail preview` shows."""

    name: str
    template: str
    """Where the chat template comes from."""
    special_tokens: tuple[SpecialToken, ...]
    num_rows: int
    num_rows_ending: int
    """Rows that train the end-of-turn token, without which a model does not learn to stop."""
    num_rows_cut: int
    num_cut_tokens: int
    longest_tokens: int
    """Longest row before the cut."""
    max_length: int
    num_tokens: int
    num_trained_tokens: int
    lengths: tuple[Bin, ...]
    """Histogram of the rows' tokens after the cut."""
    estimate: Estimate
    rows: tuple[PreviewRow, ...]


def preview(
    config: PipelineConfig, tokens: StageReport, train: DatasetRef, num_rows: int
) -> Preview:
    """Preview `num_rows` rows, spread over the training rows, and the training of them all.

    `tokens` is the report of the stage that tokenised `train`.

    Raises:
        DataError: there is no training row, or one leaves the collator without a trained token.
        ProcessError: the rehearsal ended without an answer, as where the base alone is too large.
    """
    request = {
        "config": config.model_dump(mode="json"),
        "base": str(check_base(tokens.models["base"])),
        "tokens": str(locate(tokens.private["train"])),
        "template": str(locate(tokens.files["chat_template"])),
        "train": train.model_dump(mode="json"),
        "metrics": tokens.metrics,
        "num_rows": num_rows,
    }
    try:
        return Preview.model_validate(ask("sft_core.preview", request))
    except ProcessError as error:
        if not error.killed:
            raise
        raise ProcessError(
            "preview: the process that tried some steps was ended by the system, as it happens "
            "where memory runs out: this training does not fit. Lower "
            "training.per_device_train_batch_size or tokenization.max_length, or take a smaller "
            "base."
        ) from error


def _preview(request: Reply) -> Reply:
    """The work of the process of its own."""
    from sft_core.token_file import load_tokens
    from sft_core.training.rehearsal import rehearse
    from sft_core.training.trainer import build_trainer

    config = PipelineConfig.model_validate(request["config"])
    path, metrics = Path(request["tokens"]), request["metrics"]
    template = Path(request["template"]).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        data = load_tokens(path, Path(temporary))
        if len(data) == 0:
            raise DataError("preview: there are 0 rows to train on. See the ledger.")
        num_processes = config.training.num_processes
        together = config.training.gradient_accumulation_steps * num_processes
        trainer, tokenizer = build_trainer(
            Path(request["base"]),
            data,
            None,
            config.training.model_copy(
                update={
                    "gradient_accumulation_steps": together,
                    "num_processes": 1,
                    "fsdp": False,
                }
            ),
            config.model,
            chat_template=template,
            seed=config.seed,
            output=Path(temporary),
        )
        lengths = row_lengths(path)
        end = end_of_turn_id(tokenizer, template)
        positions = sorted(
            {i * len(data) // request["num_rows"] for i in range(request["num_rows"])}
        )
        numbers = pq.read_table(path, columns=["row"]).column("row").to_numpy()
        rows = list(
            _rows(
                trainer,
                tokenizer,
                template,
                DatasetRef.model_validate(request["train"]),
                {position: int(numbers[position]) for position in positions},
                int(metrics["max_length"]),
            )
        )
        estimate = rehearse(trainer, lengths, num_processes)
    return Preview(
        name=config.name,
        template=_source(request, config),
        special_tokens=tuple(_special_tokens(tokenizer, end, rows)),
        num_rows=len(lengths),
        num_rows_ending=_rows_with_label(path, end),
        num_rows_cut=int(metrics["num_truncated"]),
        num_cut_tokens=int(metrics["num_cut_tokens"]),
        longest_tokens=int(metrics["longest_tokens"]),
        max_length=int(metrics["max_length"]),
        num_tokens=int(metrics["num_tokens"]),
        num_trained_tokens=int(metrics["num_trained_tokens"]),
        lengths=tuple(histogram(lengths)),
        estimate=estimate,
        rows=tuple(rows),
    ).model_dump(mode="json")


def _source(request: Reply, config: PipelineConfig) -> str:
    from sft_core.base_model import load_tokenizer

    own = load_tokenizer(Path(request["base"]), config.model)
    return template_source(own, config.tokenization.chat_template)


def _rows(
    trainer: Any,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    train: DatasetRef,
    positions: dict[int, int],
    max_length: int,
) -> Iterator[PreviewRow]:
    """The examples at these positions, which are of these rows, each through the collator alone."""
    loader = trainer.get_train_dataloader()
    layout = SEQ2SEQ if trainer.model.config.is_encoder_decoder else CAUSAL
    wanted = set(positions.values())
    records = {record.row: record for record in read_records(train) if record.row in wanted}
    for position, row in positions.items():
        record = records[row]
        batch = loader.collate_fn([loader.dataset[position]])
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        examples = tokenize_records([record], tokenizer, template, max_length, layout)
        num_cut = next(e.num_cut for _, e in examples if e.input_ids == ids)
        num_trained = sum(label != IGNORED for label in labels[1:])
        if num_trained == 0:
            raise DataError(
                f"preview: row {record.row} ({record.row_id[:12]}) leaves the collator without a "
                "trained token."
            )
        yield PreviewRow(
            row=record.row,
            row_id=record.row_id,
            num_tokens=len(ids),
            num_trained=num_trained,
            num_cut=num_cut,
            spans=tuple(_spans(ids, labels, tokenizer)),
        )


def _spans(ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[Span]:
    texts = token_texts(ids, tokenizer)
    pairs = zip(texts, [label != IGNORED for label in labels], strict=True)
    for trained, group in groupby(pairs, key=lambda pair: pair[1]):
        yield Span(trained=trained, texts=tuple(text for text, _ in group))


def token_texts(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Text of each token; joined, they are the text of them all.

    A character of several tokens stands at its last one, the others are empty. Each token is read
    beside the one before it, because alone many tokenizers drop its space.
    """

    def read(part: list[int]) -> str:
        return str(tokenizer.decode(part, clean_up_tokenization_spaces=False))

    texts: list[str] = []
    start = done = 0
    for end in range(1, len(ids) + 1):
        before, now = read(ids[start:done]), read(ids[start:end])
        if now.endswith("\ufffd") and end < len(ids):
            texts.append("")
            continue
        texts.append(now[len(before) :])
        start, done = done, end
    return texts


def row_lengths(tokens: Path) -> list[int]:
    """Tokens of each row of a token file."""
    batches = pq.ParquetFile(tokens).iter_batches(columns=["input_ids"])
    return [n for batch in batches for n in pc.list_value_length(batch.column(0)).to_pylist()]


def histogram(lengths: list[int]) -> Iterator[Bin]:
    """Up to twelve equally wide ranges from the shortest to the longest row."""
    first, last = min(lengths), max(lengths)
    width = math.ceil((last - first + 1) / _BINS)
    for low in range(first, last + 1, width):
        high = min(low + width - 1, last)
        yield Bin(first=low, last=high, num_rows=sum(low <= n <= high for n in lengths))


def _rows_with_label(tokens: Path, label: int) -> int:
    """Rows of a token file that train this token."""
    return sum(
        pc.count_distinct(
            pc.filter(
                pc.list_parent_indices(batch.column(0)),
                pc.equal(pc.list_flatten(batch.column(0)), label),
            )
        ).as_py()
        for batch in pq.ParquetFile(tokens).iter_batches(columns=["labels"])
    )


def _special_tokens(
    tokenizer: PreTrainedTokenizerBase, end: int, rows: list[PreviewRow]
) -> Iterator[SpecialToken]:
    """Those with a role, and those without one that are in the rows."""
    named = {
        "beginning of text": tokenizer.bos_token_id,
        "end of text": tokenizer.eos_token_id,
        "end of turn": end,
        "padding": tokenizer.pad_token_id,
        "unknown": tokenizer.unk_token_id,
    }
    shown = {text for row in rows for span in row.spans for text in span.texts}
    for role, number in named.items():
        if number is not None:
            yield SpecialToken(role=role, text=_text(tokenizer, number), id=number)
    for number in sorted(special_ids(tokenizer) - set(named.values())):
        if _text(tokenizer, number) in shown:
            yield SpecialToken(role="other", text=_text(tokenizer, number), id=number)


def _text(tokenizer: PreTrainedTokenizerBase, number: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(number))


if __name__ == "__main__":
    answer(_preview)
