"""Who loads the adapter's folder with plain transformers asks with the ids that training saw.

`tests/sft_core/test_tokenization.py` shows the same for random conversations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from data_checks.intake.shaping import columns_of, shape_row
from sft_core.base_model import load_tokenizer
from sft_core.config import ModelConfig, SourceConfig, TokenizationConfig, TrainingConfig
from sft_core.records import Message, Record
from sft_core.token_file import load_tokens, save_tokens
from sft_core.tokenization import chat_template, encode, prompt_ids, tokenize_records
from sft_core.training.trainer import train_adapter
from tests.sft_core.tiny_model import DEMO, STORIES, byte_tokenizer, chat, stored_base, write_base

LONG = 512
TOKENIZERS = ("template", "no template", "start token", "stories260K", "demo")
CONVERSATIONS: dict[str, list[Message]] = {
    "messages": chat("Who?", "Lily."),
    "system": chat("Who?", "Lily.", system="Be brief."),
    "turns": chat("Who?", "Lily.", "And he?", " Tim,\nI think. ", "When?", "Today."),
    "system and turns": chat("Who is it?\n", "Lily, a girl.", "Why?", "Because.", system="Be."),
    "letters": chat("Où est-ce ?", "À côté — 42 ½ 🙂", "Là ?", "Non."),
}
ROWS = {
    "prompt/completion": {"prompt": "Who is the girl?", "completion": "Lily."},
    "question/answer": {"question": "Who?\n", "answer": "\nLily."},
    "instruction": {"instruction": "Answer.", "input": "Who?", "output": "Lily."},
}


def shaped(row: dict[str, str]) -> list[Message]:
    """The messages that ingestion makes of a row."""
    source = SourceConfig(path="rows.jsonl")
    return shape_row(0, row, columns_of(source, row), source).messages


@dataclass(frozen=True)
class Trained:
    base: PreTrainedTokenizerBase
    template: str
    adapter: PreTrainedTokenizerBase
    """As anybody loads it: nothing of ours, no template given."""
    training_ids: list[list[int]]
    """What was trained on, in the order of `CONVERSATIONS`."""


@pytest.fixture(scope="module", params=TOKENIZERS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("parity")
    stored = {"stories260K": STORIES, "demo": DEMO}
    if request.param in stored:
        model = stored_base(stored[request.param])
    elif request.param == "template":
        model = write_base(folder / "base", byte_tokenizer())
    else:
        start = {"bos_token": "<s>"} if request.param == "start token" else {}
        model = write_base(folder / "base", byte_tokenizer(None, **start))
    return train(model, folder)


def train(model: ModelConfig, folder: Path) -> Trained:
    base_folder = Path(model.model_name_or_path)
    base = load_tokenizer(base_folder, model)
    template = chat_template(base, TokenizationConfig())
    records = [Record(i, f"{i:064d}", m) for i, m in enumerate(CONVERSATIONS.values())]
    tokens = folder / "train.parquet"
    save_tokens(tokenize_records(records, base, template, LONG), tokens)
    training = train_adapter(
        base_folder,
        tokens,
        None,
        TrainingConfig(max_steps=1),
        model,
        chat_template=template,
        seed=0,
        output=folder / "work",
    )
    plain = AutoTokenizer.from_pretrained(str(training.adapter), local_files_only=True)
    ids = load_tokens(tokens, folder)["input_ids"][:]
    return Trained(base, template, plain, ids)


def asked(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    return ids


def test_template_lies_with_the_adapter(trained: Trained) -> None:
    assert trained.adapter.chat_template == trained.template


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_each_answer_is_asked_for_with_the_ids_before_it(trained: Trained, name: str) -> None:
    messages = CONVERSATIONS[name]
    ids = trained.training_ids[list(CONVERSATIONS).index(name)]
    labels = encode(messages, trained.base, trained.template, LONG).labels
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    starts = [t for t in range(1, len(ids)) if labels[t] != -100 and labels[t - 1] == -100]
    assert len(starts) == len(turns)
    for turn, start in zip(turns, starts, strict=True):
        assert prompt_ids(messages[:turn], trained.adapter, trained.template) == ids[:start]
        assert asked(trained.adapter, messages[:turn]) == ids[:start]


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_other_shapes(trained: Trained, name: str) -> None:
    messages = shaped(ROWS[name])
    example = encode(messages, trained.base, trained.template, LONG)
    start = next(t for t, label in enumerate(example.labels) if label != -100)
    assert asked(trained.adapter, messages[:-1]) == example.input_ids[:start]


def test_start_token_is_there_once(trained: Trained) -> None:
    ids = asked(trained.adapter, CONVERSATIONS["turns"][:-1])
    assert ids.count(trained.base.bos_token_id) <= 1
