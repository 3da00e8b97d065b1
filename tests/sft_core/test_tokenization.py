from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from sft_core.base_model import load_tokenizer
from sft_core.config import TokenizationConfig
from sft_core.errors import ConfigError, DataError
from sft_core.layout import IGNORED
from sft_core.records import PLAIN_TEXT, Message, Record
from sft_core.token_file import TokenCounts, load_tokens, save_tokens
from sft_core.tokenization import (
    chat_template,
    encode,
    end_of_turn_id,
    prompt_ids,
    resolve_max_length,
    tokenize_records,
)
from tests.sft_core.tiny_model import (
    CHATML,
    DEMO,
    STORIES,
    byte_tokenizer,
    chat,
    record,
    stored_base,
)

LONG = 10_000
CONVERSATIONS = {
    "one turn": chat("Who?", "Lily."),
    "system": chat("Who?", "Lily.", system="Be brief."),
    "turns": chat("Who?", "Lily.", "And he?", " Tim,\nI think. ", "When?", "Today."),
    "letters": chat("Où est-ce ?", "À côté — 42 ½ 🙂"),
    "line breaks": chat("a\n\n", "\n\nb"),
}
TOKENIZERS = ("template", "no template", "start token", "stories260K", "demo")


def tokenizer_named(name: str) -> PreTrainedTokenizerBase:
    if name == "stories260K":
        return load_tokenizer(STORIES, stored_base(STORIES))
    if name == "demo":
        return load_tokenizer(DEMO, stored_base(DEMO))
    if name == "template":
        return byte_tokenizer()
    return byte_tokenizer(None, **({"bos_token": "<s>"} if name == "start token" else {}))


def ready(name: str) -> tuple[PreTrainedTokenizerBase, str]:
    tokenizer = tokenizer_named(name)
    return tokenizer, chat_template(tokenizer, TokenizationConfig())


def trained_text(messages: list[Message], tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    labels = encode(messages, tokenizer, template, LONG).labels
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


def test_mask_by_hand() -> None:
    tokenizer, template = ready("template")
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])

    def ids(text: str) -> list[int]:
        return tokenizer.convert_tokens_to_ids([{"\n": "Ċ"}.get(c, c) for c in text])

    example = encode(chat("Hi", "Yo", "Go", "No"), tokenizer, template, LONG)
    pieces = [
        ([start, *ids("user\nHi"), end, *ids("\n"), start, *ids("assistant\n")], False),
        ([*ids("Yo"), end], True),
        ([*ids("\n"), start, *ids("user\nGo"), end], False),
        ([*ids("\n"), start, *ids("assistant\n")], False),
        ([*ids("No"), end], True),
    ]
    assert example.input_ids == [i for piece, _ in pieces for i in piece]
    assert example.labels == [i if on else IGNORED for piece, on in pieces for i in piece]
    assert example.num_trained == 6
    assert example.num_cut == 0


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_prompt_is_what_precedes_the_answer_in_training(name: str, conversation: str) -> None:
    tokenizer, template = ready(name)
    messages = CONVERSATIONS[conversation]
    example = encode(messages, tokenizer, template, LONG)
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for turn in answers:
        prompt = prompt_ids(messages[:turn], tokenizer, template)
        assert example.input_ids[: len(prompt)] == prompt
        assert example.labels[len(prompt) - 1] == IGNORED
        assert example.labels[len(prompt)] == example.input_ids[len(prompt)]
    # Upstream tokenises a prompt whole.
    whole = tokenizer.apply_chat_template(
        messages[: answers[0]],
        chat_template=template,
        add_generation_prompt=True,
        return_dict=False,
    )
    assert prompt_ids(messages[: answers[0]], tokenizer, template) == whole


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_ids_are_those_of_the_whole_text(conversation: str) -> None:
    tokenizer, template = ready("template")
    whole = tokenizer.apply_chat_template(CONVERSATIONS[conversation], return_dict=False)
    example = encode(CONVERSATIONS[conversation], tokenizer, template, LONG)
    assert example.input_ids == whole[:-1]  # the newline after the last answer is left out


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_answer_is_trained_with_its_end(name: str) -> None:
    tokenizer, template = ready(name)
    end = tokenizer.decode([end_of_turn_id(tokenizer, template)])
    text = trained_text(CONVERSATIONS["turns"], tokenizer, template)
    answers = [part.strip() for part in text.split(end)]
    assert answers == ["Lily.", "Tim,\nI think.", "Today.", ""]


def test_start_token_stands_once() -> None:
    tokenizer, template = ready("start token")
    ids = encode(CONVERSATIONS["turns"], tokenizer, template, LONG).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id


def test_end_of_turn_can_differ_from_end_of_text() -> None:
    tokenizer, template = ready("template")
    assert end_of_turn_id(tokenizer, template) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn_id(*ready("no template")) == tokenizer.eos_token_id


def test_default_template() -> None:
    tokenizer, template = ready("start token")
    ids = prompt_ids(chat("Hi", "Yo", "Go", system="Be."), tokenizer, template)
    expected = "<s>System:\nBe.\nUser:\nHi\nAssistant:\nYo<|endoftext|>\nUser:\nGo\nAssistant:\n"
    assert tokenizer.decode(ids) == expected


def test_opening_greeting_is_context() -> None:
    tokenizer, template = ready("template")
    messages = [{"role": "assistant", "content": "Hello, who is it?"}, *chat("Hi", "Yo")]
    assert trained_text(messages, tokenizer, template) == "Yo<|im_end|>"


def test_cut_at_the_end() -> None:
    tokenizer, template = ready("template")
    whole = encode(chat("Hi", "Yes"), tokenizer, template, LONG)
    # <|im_start|> "user\nHi" <|im_end|> "\n" <|im_start|> "assistant\n" is 1 + 7 + 1 + 1 + 1 + 10
    # tokens, "Yes" <|im_end|> is 4.
    assert len(whole.input_ids) == 25
    cut = encode(chat("Hi", "Yes"), tokenizer, template, 23)
    assert (cut.input_ids, cut.labels) == (whole.input_ids[:23], whole.labels[:23])
    assert (cut.num_cut, cut.num_trained) == (2, 2)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            CHATML.replace("{{ m['content'] }}", "{{ m['content'] if loop.last else '~' }}"),
            "renders turns 1 to 1 differently",
        ),
        (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}",
            "ignores add_generation_prompt",
        ),
        (
            "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
            "{% if add_generation_prompt %}[{% endif %}",
            "ends an answer without a special token",
        ),
        ("{{ raise_exception('No such role.') }}", "cannot render the turns user.*No such role"),
        ("{% for m in messages %}", "cannot render the turns user"),
    ],
)
def test_unsuitable_template(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^tokenization\.chat_template: .*{message}"):
        encode(CONVERSATIONS["turns"], byte_tokenizer(), template, LONG)


def test_template_without_a_header_needs_no_cue() -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    text = trained_text(chat("Hi", "Yo", "Go", "No"), byte_tokenizer(), template)
    assert text == " Yo<|endoftext|> No<|endoftext|>"


def test_which_template(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    assert chat_template(tokenizer, TokenizationConfig()) == CHATML
    mine = tmp_path / "mine.jinja"
    mine.write_text(CHATML.replace("im_end", "endoftext"))
    config = TokenizationConfig(chat_template=str(mine))
    assert chat_template(tokenizer, config) == mine.read_text()
    mine.write_text("{% if %}")
    with pytest.raises(ConfigError, match="cannot render"):
        chat_template(tokenizer, config)
    mine.unlink()
    with pytest.raises(ConfigError, match=r"mine\.jinja cannot be read: No such file"):
        chat_template(tokenizer, config)


def test_max_length() -> None:
    assert resolve_max_length(TokenizationConfig(), 512) == 512
    assert resolve_max_length(TokenizationConfig(max_length=100), 512) == 100
    assert resolve_max_length(TokenizationConfig(max_length=100), None) == 100
    with pytest.raises(ConfigError, match=r"tokenization\.max_length is 1,000 tokens.*512"):
        resolve_max_length(TokenizationConfig(max_length=1_000), 512)
    with pytest.raises(ConfigError, match="does not state its context"):
        resolve_max_length(TokenizationConfig(), None)


def test_rows_without_a_trained_token_are_named() -> None:
    records = [record(i, "Hi" * (40 if i % 3 == 0 else 1), "Secret") for i in range(36)]
    records.append(record(36, "no answer"))
    rows = []
    with pytest.raises(DataError) as caught:
        rows.extend(row for row, _ in tokenize_records(records, *ready("template"), 40))
    message = str(caught.value)
    assert message.startswith("tokenize: 13 rows have no trained token within 40 tokens: row 0 (0")
    assert "row 27 (000000000027) and 3 more" in message
    assert "tokenization.max_length" in message
    assert "Secret" not in message
    assert len(rows) == 24


def test_batches_do_not_change_tokens() -> None:
    tokenizer, template = ready("no template")
    records = [record(i, f"n{i}", str(i) * (i % 7 + 1), "x", "y") for i in range(1_001)]
    found = list(tokenize_records(iter(records), tokenizer, template, LONG))
    assert [row for row, _ in found] == list(range(1_001))
    for position in (0, 999, 1_000):
        alone = encode(records[position].messages, tokenizer, template, LONG)
        assert found[position][1] == alone


def test_counts_and_file(tmp_path: Path) -> None:
    # As in test_cut_at_the_end: 25 tokens with 4 trained, and 21 + 6 + 1 = 28 cut to 26, 5 trained.
    records = [record(3, "Hi", "Yes"), record(5, "Hi", "Maybe!")]
    examples = list(tokenize_records(records, *ready("template"), 26))
    counts = save_tokens(examples, tmp_path / "train.parquet")
    assert counts == TokenCounts(2, 1, 2, 51, 9, 28)
    assert counts.metrics() == {
        "num_examples": 2,
        "num_truncated": 1,
        "num_cut_tokens": 2,
        "num_tokens": 51,
        "num_trained_tokens": 9,
        "num_masked_tokens": 42,
        "longest_tokens": 28,
        "truncated_rate": 0.5,
    }
    data = load_tokens(tmp_path / "train.parquet", tmp_path / "work")
    assert data["row"][:] == [3, 5]
    assert data["input_ids"][:] == [e.input_ids for _, e in examples]
    assert data["labels"][:] == [e.labels for _, e in examples]
    save_tokens(examples, tmp_path / "again.parquet")
    again, first = tmp_path / "again.parquet", tmp_path / "train.parquet"
    assert again.read_bytes() == first.read_bytes()


def test_no_rows(tmp_path: Path) -> None:
    counts = save_tokens([], tmp_path / "none.parquet")
    assert counts.metrics()["truncated_rate"] == 0.0
    assert len(load_tokens(tmp_path / "none.parquet", tmp_path / "work")) == 0


def text_rows(*texts: str) -> list[Record]:
    return [
        Record(n, f"{n:064d}", [{"role": PLAIN_TEXT, "content": text}])
        for n, text in enumerate(texts)
    ]


def test_plain_text_is_trained_whole_and_ends() -> None:
    tokenizer, template = ready("template")
    [(row, example)] = tokenize_records(text_rows("Once."), tokenizer, template, LONG)
    start = end = tokenizer.eos_token_id  # no start token, so that which ends the text before
    assert (row, example.input_ids) == (0, [start, *tokenizer("Once.")["input_ids"], end])
    assert example.labels == [IGNORED, *example.input_ids[1:]]
    assert (example.num_trained, example.num_cut) == (6, 0)


@pytest.mark.parametrize("length", [0, 1, 8, 9, 10, 18, 19, 100])
def test_long_text_is_trained_once_in_windows(length: int) -> None:
    tokenizer, template = ready("template")
    text = "".join(chr(97 + n % 26) for n in range(length)) or "\n"
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    found = [e for _, e in tokenize_records(text_rows(text), tokenizer, template, 10)]
    assert len(found) == -(-len(ids) // 9)  # 9 tokens fit after the start token
    assert [t for e in found for t in e.labels if t != IGNORED] == ids
    for example in found:
        assert len(example.input_ids) == min(10, 1 + len(ids))
        assert example.num_trained > 0
        kept = zip(example.input_ids, example.labels, strict=True)
        assert all(label in (IGNORED, token) for token, label in kept)
        assert tokenizer.decode(example.input_ids[1:]) in tokenizer.decode(ids)


def test_plain_text_needs_an_end() -> None:
    tokenizer, template = ready("template")
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no eos_token to end it"):
        list(tokenize_records(text_rows("Once."), tokenizer, template, LONG))


def test_virtual_tokens_take_room_in_the_context() -> None:
    assert resolve_max_length(TokenizationConfig(), 128, 16) == 112
    assert resolve_max_length(TokenizationConfig(max_length=50), None, 16) == 50
    with pytest.raises(ConfigError, match="112 without the virtual tokens"):
        resolve_max_length(TokenizationConfig(max_length=113), 128, 16)
    with pytest.raises(ConfigError, match="num_virtual_tokens is 128"):
        resolve_max_length(TokenizationConfig(), 128, 128)
