"""From messages to token ids with a loss mask, the same way for training and for inference.

A conversation is rendered by the chat template as text and tokenised as whoever asks the model does
it: the ids before an answer are those of the whole prompt, history included. Loss is on the
assistant's turns alone, each up to and with the token that ends it, so that the model learns to
stop. What a template writes after that token (most write a newline) is context for the next turn
and never trained; after the last answer it is left out.

Where a tokenizer joins the end of a prompt and the beginning of its answer in one token, the answer
is tokenised by itself, because the model is given the prompt alone. The next prompt then repeats
that answer in other tokens than were trained, so it begins an example of its own: each answer is
trained after the very ids that ask for it, and such a conversation gives several examples.

A sequence-to-sequence model reads all that stands before the last answer and writes that answer.
Plain text has no template: loss is on every token, and on the end-of-text token that closes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from sft_core.config import TokenizationConfig
from sft_core.conversation import TEMPLATE_KEY, Turn, read_template, render_prompt, render_turns
from sft_core.errors import ConfigError, DataError
from sft_core.layout import CAUSAL, SEQ2SEQ, Answer, Example, Layout, encode_text
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
    """The example that trains a conversation's last answer, cut to `max_length` tokens.

    Nearly always it trains the others as well: see `tokenize_records`, which gives all examples of
    a conversation. The cut can leave no trained token: `tokenize_records` refuses such a row.

    Raises:
        ConfigError: the template does not suit training; the message says why.
    """
    [answers] = _answers([messages], tokenizer, template)
    return layout.assemble(answers, max_length)[-1]


def prompt_ids(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, template: str
) -> list[int]:
    """Token ids that ask for the next answer: those that stand before it in training.

    Raises:
        ConfigError: the template cannot render these turns.
    """
    return _ids([render_prompt(messages, tokenizer, template)], tokenizer)[0]


def tokenize_records(
    records: Iterable[Record],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    max_length: int,
    layout: Layout = CAUSAL,
) -> Iterator[tuple[int, Example]]:
    """Row number and example of each record, in order, a thousand in memory at once.

    Plain text that is longer than `max_length` gives several examples, and so does a conversation
    whose later prompts read earlier answers in other tokens than were trained.

    Raises:
        DataError: after the last record, if rows have no trained token; names them without text.
        ConfigError: as `encode`, or plain text for a model that cannot continue it.
    """
    empty: list[str] = []
    num_empty = 0
    rows = iter(records)
    while batch := list(islice(rows, _BATCH_ROWS)):
        texts = [r.messages[0]["content"] for r in batch if r.is_plain_text]
        if texts:
            _check_plain_text(tokenizer, layout)
        windows = iter(_windows(texts, tokenizer, max_length))
        chats = [r.messages for r in batch if not r.is_plain_text]
        answers = iter(_answers(chats, tokenizer, template))
        for record in batch:
            if record.is_plain_text:
                examples = next(windows)
            else:
                examples = layout.assemble(next(answers), max_length)
            if examples[0].num_trained == 0:
                num_empty += 1
                if len(empty) < 10:
                    empty.append(f"row {record.row} ({record.row_id[:12]})")
                continue
            for example in examples:
                yield record.row, example
    if num_empty:
        more = f" and {num_empty - len(empty):,} more" if num_empty > len(empty) else ""
        raise DataError(
            f"tokenize: {num_empty:,} rows have no trained token within {max_length:,} tokens: "
            f"{', '.join(empty)}{more}. Their prompts fill the length or they hold no answer: "
            "raise tokenization.max_length, shorten the prompts, or take the rows out."
        )


def _check_plain_text(tokenizer: PreTrainedTokenizerBase, layout: Layout) -> None:
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


def _windows(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[list[Example]]:
    start, end = start_ids(tokenizer), tokenizer.eos_token_id
    for ids in _ids(texts, tokenizer):
        yield list(encode_text(ids, start, end, max_length))


def _answers(
    conversations: Sequence[list[Message]], tokenizer: PreTrainedTokenizerBase, template: str
) -> Iterator[list[Answer]]:
    """The answers of each conversation."""
    special = special_ids(tokenizer)
    cuts = _cuts(tokenizer)
    turns_of_each = render_turns(conversations, tokenizer, template)
    rendered = [list(_pieces(turns, cuts)) for turns in turns_of_each]
    texts = list({text: None for pieces in rendered for piece in pieces for text in piece})
    ids = dict(zip(texts, _ids(texts, tokenizer), strict=True))
    for pieces in rendered:
        answers = []
        before: list[int] = []
        for between, header, both in pieces:
            before = before + ids[between]
            written = ids[both][len(ids[header]) :]
            if ids[both][: len(ids[header])] != ids[header]:
                [written] = _ids([both[len(header) :]], tokenizer)
            answers.append(Answer(before + ids[header], written[: _end(written, special)]))
        yield answers


def _pieces(turns: list[Turn], cuts: re.Pattern[str] | None) -> Iterator[tuple[str, str, str]]:
    """Texts to tokenise, of each turn: up to the prompt's last cut, from there on, and with answer.

    A prompt's ids are those of all first texts so far and of its second.
    """
    start = cut = 0
    for turn in turns:
        if cuts:
            cut = max((found.start() for found in cuts.finditer(turn.prompt, start)), default=start)
        yield turn.prompt[start:cut], turn.prompt[cut:], turn.text[cut:]
        start = cut


def _cuts(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Where a text can be cut without changing its tokens: before one of these, if there is any.

    A fast tokenizer takes added tokens out first and tokenises what lies between them, piece by
    piece. Those that are looked for in a normalised text, or that swallow what stands before them,
    do not count.
    """
    if not tokenizer.is_fast or tokenizer.split_special_tokens:
        return None
    added = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if not (token.normalized or token.lstrip or token.single_word)
    ]
    longest_first = sorted(added, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if added else None


def _end(answer: list[int], special: set[int]) -> int:
    """Tokens up to and with the last special one, which ends an answer."""
    for place in range(len(answer), 0, -1):
        if answer[place - 1] in special:
            return place
    raise ConfigError(
        f"{TEMPLATE_KEY}: the template ends an answer without a special token, so the "
        "model would never learn to stop. Write {{ eos_token }} after each answer."
    )


def _ids(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each text by itself; the template, not the tokenizer, writes the start token."""
    filled = [text for text in texts if text]
    if not filled:
        return [[] for _ in texts]
    if tokenizer.is_fast and not tokenizer.split_special_tokens:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        found = iter(backend.encode_batch_fast(filled, add_special_tokens=False))
        return [next(found).ids if text else [] for text in texts]
    ids = iter(
        tokenizer(filled, add_special_tokens=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
    )
    return [next(ids) if text else [] for text in texts]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that stand for no text, whether a role of the tokenizer names them or not."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)
