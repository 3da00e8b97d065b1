"""A conversation as text: which chat template renders it, and where its answers begin and end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from sft_core.errors import ConfigError
from sft_core.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_KEY = "tokenization.chat_template"


def read_template(tokenizer: PreTrainedTokenizerBase, path: str | None, bundled: str) -> str:
    """Jinja text from the file, else the model's own, else the bundled one of that name.

    Raises:
        ConfigError: the file cannot be read.
    """
    if path is None:
        if tokenizer.chat_template is not None:
            return str(tokenizer.get_chat_template())
        return (files("sft_core") / "texts" / bundled).read_text(encoding="utf-8")
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{TEMPLATE_KEY}: {path} cannot be read: {reason}.") from error


def template_source(tokenizer: PreTrainedTokenizerBase, path: str | None) -> str:
    """Which of the three `read_template` takes, for people."""
    if path is not None:
        return f"your own, {path}"
    return "the default" if tokenizer.chat_template is None else "the model's"


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer within the text of its conversation."""

    prompt: str
    """All that stands before the answer: what a model is given to write it."""
    text: str
    """The prompt and the answer with its end."""


def render_turns(
    conversations: Sequence[list[Message]], tokenizer: PreTrainedTokenizerBase, template: str
) -> list[list[Turn]]:
    """Each conversation's turns, in order; each begins with the text of the one before.

    An assistant's turn that opens the conversation answers nothing and is part of the prompt. Text
    after the last answer is left out.

    Raises:
        ConfigError: the template does not suit training; the message says why.
    """
    places = [
        (number, turn)
        for number, messages in enumerate(conversations)
        for turn, message in enumerate(messages)
        if turn and message["role"] == "assistant"
    ]
    asked = [conversations[number][:turn] for number, turn in places]
    prompts = _render(asked, tokenizer, template, ask=True)
    answered = [conversations[number][: turn + 1] for number, turn in places]
    texts = _render(answered, tokenizer, template)
    turns: list[list[Turn]] = [[] for _ in conversations]
    for (number, turn), prompt, text in zip(places, prompts, texts, strict=True):
        done = turns[number][-1].text if turns[number] else ""
        if not (prompt.startswith(done) and text.startswith(prompt)):
            raise ConfigError(
                f"{TEMPLATE_KEY}: the template renders turns 1 to {turn} differently once more "
                "follow, so the model would be trained on other text than it is asked with. Use a "
                "template that renders each turn the same wherever it stands."
            )
        messages = conversations[number]
        bare = text[len(prompt) :].lstrip().startswith(messages[turn]["content"].strip())
        if not bare and [prompt] == _render([messages[:turn]], tokenizer, template):
            raise ConfigError(
                f"{TEMPLATE_KEY}: the template ignores add_generation_prompt yet writes a header "
                "before each answer, which the model would have to guess. Let it write that header "
                "when add_generation_prompt is set."
            )
        turns[number].append(Turn(prompt, text))
    return turns


def render_prompt(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, template: str
) -> str:
    """The text that asks for the next answer.

    Raises:
        ConfigError: the template cannot render these turns.
    """
    [prompt] = _render([messages], tokenizer, template, ask=True)
    return prompt


def _render(
    conversations: Sequence[list[Message]],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    ask: bool = False,
) -> list[str]:
    if not conversations:
        return []
    try:
        texts: list[str] = tokenizer.apply_chat_template(
            conversations, chat_template=template, add_generation_prompt=ask, tokenize=False
        )
    except jinja2.TemplateError as error:
        if len(conversations) > 1:  # which of them it is
            return [_render([one], tokenizer, template, ask)[0] for one in conversations]
        roles = ", ".join(message["role"] for message in conversations[0])
        raise ConfigError(
            f"{TEMPLATE_KEY}: the template cannot render the turns {roles}: {str(error)[:200]}"
        ) from error
    return texts
