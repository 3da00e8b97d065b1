"""How token ids become what a model is trained on: one sequence or two, and where the loss is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
class Answer:
    """An assistant's turn in tokens."""

    prompt_ids: list[int]
    """What the model is given, from the beginning of the conversation."""
    ids: list[int]
    """What it is to write, up to and with the token that ends it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of model is trained on: see `CAUSAL` and `SEQ2SEQ`."""

    bundled_template: str
    """For a tokenizer that has no template; a file in `texts`."""
    assemble: Callable[[Sequence[Answer], int], list[Example]]
    """Makes the examples of one conversation from its answers and the longest length in tokens."""


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


def _in_one_sequence(answers: Sequence[Answer], max_length: int) -> list[Example]:
    """The whole conversation, cut at the end, with loss on each answer.

    A prompt that repeats what went before in other tokens begins a new sequence, in which only the
    answers from there on have loss. Answers that lie beyond the cut of theirs are counted as cut.
    """
    sequences: list[tuple[list[int], list[int]]] = [([], [])]
    for answer in answers:
        ids, labels = sequences[-1]
        if answer.prompt_ids[: len(ids)] != ids:
            ids, labels = [], []
            sequences.append((ids, labels))
        asked = answer.prompt_ids[len(ids) :]
        ids += asked + answer.ids
        labels += [IGNORED] * len(asked) + answer.ids
    examples: list[Example] = []
    for ids, labels in sequences:
        kept = min(len(ids), max_length)
        example = Example(ids[:kept], [IGNORED, *labels[1:kept]][:kept], len(ids) - kept)
        if examples and example.num_trained == 0:
            lost = len(labels) - labels.count(IGNORED)
            examples[-1] = replace(examples[-1], num_cut=examples[-1].num_cut + lost)
        else:
            examples.append(example)
    return examples


def _in_two_sequences(answers: Sequence[Answer], max_length: int) -> list[Example]:
    """What is asked, cut at the start as a prompt is, and the last answer, cut at the end."""
    if not answers:
        return [Example([], [], 0)]
    asked, answer = answers[-1].prompt_ids, answers[-1].ids
    read, written = asked[-max_length:], answer[:max_length]
    return [Example(read, written, len(asked) + len(answer) - len(read) - len(written))]


CAUSAL = Layout("default.jinja", _in_one_sequence)
"""Prompt and answers in one sequence, which the model continues."""
SEQ2SEQ = Layout("seq2seq.jinja", _in_two_sequences)
"""The prompt for the encoder, the last answer for the decoder."""
