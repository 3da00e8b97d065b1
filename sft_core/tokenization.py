"""From messages to token ids with a loss mask, the same way for training and for inference.

A conversation is rendered by the chat template as text, which is cut where each answer begins, and
each piece is tokenised by itself. The ids before an answer are therefore, by construction, the ids
that the model is prompted with. Loss is on the assistant's turns alone, each
up to and with the token that ends it, so that the model learns to stop. What a template writes
after that token (most write a newline) is context for the next turn and never trained; after the
last answer it is left out.

A sequence-to-sequence model reads all that stands before the last answer and writes that answer.
Plain text has no template: loss is on every token, and on the end-of-text token that closes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from sft_core.config import TokenizationConfig
from sft_core.conversation import read_template, split_turns
from sft_core.errors import ConfigError, DataError
from sft_core.layout import CAUSAL, SEQ2SEQ, Example, Layout, encode_text
from sft_core.records import Message, Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH_ROWS = 1_000


def chat_template(
    tokenizer: PreTrainedTokenizerBase, config: TokenizationConfig, layout: Layout = CAUSAL
) -> str:
    """The template in the config, else the model's own, else the bundled one of the layout.

    Raises:
        ConfigError: the file cannot be read, or the template fails on a first conversation.
    """
    template = read_template(tokenizer, config.chat_template, layout.bundled_template)
    end_of_turn_id(tokenizer, template)
    return template


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase, template: str) -> int:
    """The token that ends an assistant's turn: generation must stop at it.

    In many chat models it is not the tokenizer's end-of-text token.
    """
    messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes."}]
    return encode(messages, tokenizer, template, 1 << 30).input_ids[-1]


def start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What stands before plain text: the start token, else that which ends the text before it."""
    found = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return [token for token in found if token is not None][:1]


def resolve_max_length(
    config: TokenizationConfig, context: int | None, num_virtual_tokens: int = 0
) -> int:
    """Longest example in tokens: as configured, else the model's context.

    `num_virtual_tokens` is the part of the context that the adapter takes for itself.

    Raises:
        ConfigError: more is asked for than the model's context, or neither is known.
    """
    if context is not None and num_virtual_tokens:
        if num_virtual_tokens > context - 8:
            raise ConfigError(
                f"training: num_virtual_tokens is {num_virtual_tokens:,}, the model's context "
                f"{context:,} tokens: no room for an example. Lower it."
            )
        context -= num_virtual_tokens
    if config.max_length is None and context is None:
        raise ConfigError(
            "tokenization.max_length: the model does not state its context. Set a length in tokens."
        )
    if config.max_length is not None and context is not None and config.max_length > context:
        raise ConfigError(
            f"tokenization.max_length is {config.max_length:,} tokens, the model's context is "
            f"{context:,}{' without the virtual tokens' if num_virtual_tokens else ''}. Lower it, "
            "or leave it empty to use the whole context."
        )
    return config.max_length or context or 0


def encode(
    messages: list[Message],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_length: int,
    layout: Layout = CAUSAL,
) -> Example:
    """One conversation, cut to `max_length` tokens; causal unless a layout says else.

    The cut can leave no trained token: `tokenize_records` refuses such a row.

    Raises:
        ConfigError: the template does not suit training; the message says why.
    """
    texts = _texts(split_turns(messages, tokenizer, template))
    return layout.assemble(_ids(texts, tokenizer), special_ids(tokenizer), max_length)


def prompt_ids(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, template: str
) -> list[int]:
    """Token ids that ask for the next answer: those that stand before it in training.

    Raises:
        ConfigError: as `encode`.
    """
    first, *rest = _texts(split_turns(messages, tokenizer, template, ask=True))
    return [token for ids in _ids([first, *rest[1::2]], tokenizer) for token in ids]


def tokenize_records(
    records: Iterable[Record],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_length: int,
    layout: Layout = CAUSAL,
) -> Iterator[tuple[int, Example]]:
    """Row number and example of each record, in order, in memory for a thousand rows.

    Plain text that is longer than `max_length` gives several examples.

    Raises:
        DataError: after the last record, if rows have no trained token; names them without text.
        ConfigError: as `encode`, or plain text for a model that cannot continue it.
    """
    start, end = start_ids(tokenizer), tokenizer.eos_token_id
    special = special_ids(tokenizer)
    empty: list[str] = []
    num_empty = 0
    rows = iter(records)
    while batch := list(islice(rows, _BATCH_ROWS)):
        texts = [_record_texts(r, tokenizer, template, layout) for r in batch]
        ids = iter(_ids([text for row in texts for text in row], tokenizer))
        for record, row in zip(batch, texts, strict=True):
            pieces = [next(ids) for _ in row]
            if record.is_plain_text:
                for window in encode_text(pieces[0], start, end, max_length):
                    yield record.row, window
                continue
            example = layout.assemble(pieces, special, max_length)
            if example.num_trained == 0:
                num_empty += 1
                if len(empty) < 10:
                    empty.append(f"row {record.row} ({record.row_id[:12]})")
                continue
            yield record.row, example
    if num_empty:
        more = f" and {num_empty - len(empty):,} more" if num_empty > len(empty) else ""
        raise DataError(
            f"tokenize: {num_empty:,} rows have no trained token within {max_length:,} tokens: "
            f"{', '.join(empty)}{more}. Their prompts fill the length or they hold no answer: "
            "raise tokenization.max_length, shorten the prompts, or take the rows out."
        )


def _record_texts(
    record: Record, tokenizer: PreTrainedTokenizerBase, template: str, layout: Layout
) -> list[str]:
    """What to tokenise of a record."""
    if not record.is_plain_text:
        return _texts(split_turns(record.messages, tokenizer, template))
    if layout is SEQ2SEQ:
        raise ConfigError(
            "tokenize: the rows are plain text, which a sequence-to-sequence model cannot "
            "continue. Set model.model_name_or_path to a causal model, or give prompts and answers."
        )
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            "tokenize: the rows are plain text, and the tokenizer has no eos_token to end it. "
            "Name one in its tokenizer_config.json."
        )
    return [record.messages[0]["content"]]


def _texts(pairs: list[tuple[str, str]]) -> list[str]:
    """What to tokenise: the first prompt, then each answer, alone and with the prompt after it.

    Alone says how many tokens the answer has; together the two give the very ids that the
    tokenizer gives to the whole text, because a special token stands between them. Nothing follows
    the last answer, so its second text is empty.
    """
    if not pairs:
        return [""]
    texts = [pairs[0][0]]
    for (_, answer), (prompt, _) in pairwise([*pairs, ("", "")]):
        texts += [answer, answer + prompt if prompt else ""]
    return texts


def _ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each text by itself; the template, not the tokenizer, writes the start token."""
    ids: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return [row if text else [] for text, row in zip(texts, ids, strict=True)]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that stand for no text, whether a role of the tokenizer names them or not."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)
