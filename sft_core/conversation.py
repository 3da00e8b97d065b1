"""A conversation as text: which chat template renders it, and where its answers begin and end."""

from __future__ import annotations

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


def split_turns(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, template: str, ask: bool = False
) -> list[tuple[str, str]]:
    """The rendered text as pairs of prompt and answer; `ask` adds a last prompt without an answer.

    All texts in a row are the conversation as the template renders it. An assistant's turn that
    opens the conversation answers nothing and is part of the prompt. Text after the last answer is
    left out.

    Raises:
        ConfigError: the template does not suit training; the message says why.
    """
    pairs = []
    done = ""
    for turn, message in enumerate(messages):
        if turn == 0 or message["role"] != "assistant":
            continue
        prompt = _render(messages[:turn], tokenizer, template, ask=True)
        text = _render(messages[: turn + 1], tokenizer, template)
        if not (prompt.startswith(done) and text.startswith(prompt)):
            raise _unstable(turn)
        answer = text[len(prompt) :]
        bare = answer.lstrip().startswith(message["content"].strip())
        if not bare and prompt == _render(messages[:turn], tokenizer, template):
            raise ConfigError(
                f"{TEMPLATE_KEY}: the template ignores add_generation_prompt yet writes a header "
                "before each answer, which the model would have to guess. Let it write that header "
                "when add_generation_prompt is set."
            )
        pairs.append((prompt[len(done) :], answer))
        done = text
    if ask:
        prompt = _render(messages, tokenizer, template, ask=True)
        if not prompt.startswith(done):
            raise _unstable(len(messages))
        pairs.append((prompt[len(done) :], ""))
    return pairs


def _unstable(turn: int) -> ConfigError:
    return ConfigError(
        f"{TEMPLATE_KEY}: the template renders turns 1 to {turn} differently once more follow, so "
        "the model would be trained on other text than it is asked with. Use a template that "
        "renders each turn the same wherever it stands."
    )


def _render(
    messages: list[Message], tokenizer: PreTrainedTokenizerBase, template: str, ask: bool = False
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=ask, tokenize=False
            )
        )
    except jinja2.TemplateError as error:
        roles = ", ".join(m["role"] for m in messages)
        raise ConfigError(
            f"{TEMPLATE_KEY}: the template cannot render the turns {roles}: {str(error)[:200]}"
        ) from error
