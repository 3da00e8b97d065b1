"""How token ids become what a model is trained on: one sequence or two, and where the loss is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sft_core.conversation import TEMPLATE_KEY
from sft_core.errors import ConfigError

IGNORED = -100
"""Label of a token without loss, as in PyTorch."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row ready for training; `labels` holds the id of a trained token and -100 elsewhere.

    For a causal model both are equally long, and the first label is -100: nothing stands before
    it. For a sequence-to-sequence model they are what it reads and what it writes.
    """

    input_ids: list[int]
    labels: list[int]
    num_cut: int
    """Tokens cut off because the row was too long."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the model sees; the labels of a causal model are part of what it reads."""
        is_causal = self.labels[:1] == [IGNORED]
        return len(self.input_ids) + (0 if is_causal else len(self.labels))

    @property
    def num_trained(self) -> int:
        """Tokens with loss."""
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of model is trained on: see `CAUSAL` and `SEQ2SEQ`."""

    bundled_template: str
    """For a tokenizer that has no template; a file in `texts`."""
    assemble: Callable[[list[list[int]], set[int], int], Example]
    """Makes an example of three things: the ids of the first prompt and, for each answer, of the
    answer alone and of the answer with the prompt after it (nothing after the last); the special
    tokens; the longest length in tokens. Raises ConfigError where an answer has no end."""


def encode_text(ids: list[int], start: list[int], end: int, max_length: int) -> Iterator[Example]:
    """A plain text in windows of at most `max_length` tokens, each after the start token.

    Every token is trained once, and last the end-of-text token. The last window is as long as the
    others: what it repeats of the one before is context without loss.
    """
    body = [*ids, end]
    room = max_length - len(start)
    for first in range(0, len(body), room):
        begin = max(0, min(first, len(body) - room))
        masked = [IGNORED] * (len(start) + first - begin)
        trained = body[first : first + room]
        yield Example([*start, *body[begin : begin + room]], [*masked, *trained], 0)


def _answer_length(answer: list[int], special: set[int]) -> int:
    """Tokens up to and with the last special one, which ends an answer."""
    stop = max((i + 1 for i, token in enumerate(answer) if token in special), default=0)
    if stop == 0:
        raise ConfigError(
            f"{TEMPLATE_KEY}: the template ends an answer without a special token, so the "
            "model would never learn to stop. Write {{ eos_token }} after each answer."
        )
    return stop


def _in_one_sequence(ids: list[list[int]], special: set[int], max_length: int) -> Example:
    """The whole conversation, cut at the end, with loss on each answer."""
    input_ids = list(ids[0])
    labels = [IGNORED] * len(input_ids)
    end = 0
    for answer, with_prompt in zip(ids[1::2], ids[2::2], strict=True):
        stop = _answer_length(answer, special)
        end = len(input_ids) + stop
        piece = with_prompt or answer
        input_ids += piece
        labels += piece[:stop] + [IGNORED] * (len(piece) - stop)
    kept = min(end, max_length)
    return Example(input_ids[:kept], [IGNORED, *labels[1:kept]][:kept], end - kept)


def _in_two_sequences(ids: list[list[int]], special: set[int], max_length: int) -> Example:
    """What is asked, cut at the start as a prompt is, and the last answer, cut at the end."""
    if len(ids) == 1:
        return Example(ids[0], [], 0)
    answer = ids[-2][: _answer_length(ids[-2], special)]
    asked = [token for piece in (ids[0], *ids[2:-2:2]) for token in piece]
    read, written = asked[-max_length:], answer[:max_length]
    return Example(read, written, len(asked) + len(answer) - len(read) - len(written))


CAUSAL = Layout("default.jinja", _in_one_sequence)
"""Prompt and answers in one sequence, which the model continues."""
SEQ2SEQ = Layout("seq2seq.jinja", _in_two_sequences)
"""The prompt for the encoder, the last answer for the decoder."""
