from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sft_core.base_model import load_tokenizer
from sft_core.config import TokenizationConfig
from sft_core.errors import ConfigError, DataError
from sft_core.layout import IGNORED, Example
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
    if name == "not fast":
        return ByT5Tokenizer()
    if name == "joining":
        return joining_tokenizer()
    return byte_tokenizer(None, **({"bos_token": "<s>"} if name == "start token" else {}))


@cache
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
        assert prompt == asked(messages[:turn], tokenizer, template)


def asked(messages: list[Message], tokenizer: PreTrainedTokenizerBase, template: str) -> list[int]:
    """What plain transformers give to the model."""
    ids: list[int] = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    return ids


def joining_tokenizer() -> PreTrainedTokenizerBase:
    """As `byte_tokenizer`, but it joins two line breaks, or a line break and the letter after it.

    Nothing keeps the end of a header and the beginning of an answer apart.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = [("Ċ", letter) for letter in ("Ċ", "N", "Y", "a")]
    vocabulary = {c: i for i, c in enumerate([*alphabet, *map("".join, joined)])}
    backend = Tokenizer(models.BPE(vocabulary, joined))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )


def trained_spans(example: Example) -> list[tuple[int, int]]:
    """First and end of each run of trained tokens."""
    on = [False, *(label != IGNORED for label in example.labels), False]
    edges = [i for i, (before, after) in enumerate(pairwise(on)) if before != after]
    return list(zip(edges[::2], edges[1::2], strict=True))


TEXTS = st.text(st.sampled_from("\n\n  aNY.é🙂▁"), max_size=8) | st.sampled_from(
    ["Yes\nNo", "</s>", "a<|im_end|>\n", "<s> a", "<|im_start|>assistant\n"]
)


@settings(deadline=None, max_examples=30)
@given(st.lists(TEXTS, min_size=2, max_size=8), st.none() | TEXTS)
@pytest.mark.parametrize("name", [*TOKENIZERS, "not fast", "joining"])
def test_each_answer_is_trained_after_the_ids_that_ask_for_it(
    name: str, contents: list[str], system: str | None
) -> None:
    messages = chat(*contents, system=system)
    tokenizer, template = ready(name)
    row = Record(0, "f" * 64, messages)
    examples = [e for _, e in tokenize_records([row], tokenizer, template, LONG)]
    spans = [(e, first, end) for e in examples for first, end in trained_spans(e)]
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for turn, (example, first, end) in zip(turns, spans, strict=True):
        prompt = asked(messages[:turn], tokenizer, template)
        assert example.input_ids[:first] == prompt
        assert example.labels[first:end] == example.input_ids[first:end]
        assert example.input_ids[end - 1] == end_of_turn_id(tokenizer, template)
    if name in TOKENIZERS:
        assert len(examples) == 1
        text = tokenizer.apply_chat_template(messages, chat_template=template, return_dict=False)
        assert examples[0].input_ids == text[: len(examples[0].input_ids)]


def test_conversation_is_split_where_tokens_join_prompt_and_answer() -> None:
    tokenizer, template = joining_tokenizer(), CHATML
    messages = chat("Hi", "Yo", "Go", "no", "On", "Yes")
    found = list(tokenize_records([Record(7, "f" * 64, messages)], tokenizer, template, LONG))
    # History reads "\nY" in one token, which no model is given before it writes "Yo". "\n" and "n"
    # stay two, so the second answer and the third share their prompt.
    assert [row for row, _ in found] == [7, 7]
    texts = [
        [tokenizer.decode(example.labels[first:end]) for first, end in trained_spans(example)]
        for _, example in found
    ]
    assert texts == [["Yo<|im_end|>"], ["no<|im_end|>", "Yes<|im_end|>"]]
    assert encode(messages, tokenizer, template, LONG) == found[1][1]
    joined = tokenizer.convert_tokens_to_ids("ĊY")
    assert [joined in example.input_ids for _, example in found] == [False, True]


def test_split_conversation_counts_what_it_loses(tmp_path: Path) -> None:
    messages = chat("Hi", "Yo", "Go", "Now")
    row = Record(0, "f" * 64, messages)
    whole = [e for _, e in tokenize_records([row], joining_tokenizer(), CHATML, LONG)]
    assert [e.num_trained for e in whole] == [3, 4]
    room = len(whole[0].input_ids)
    cut = [(n, e) for n, e in tokenize_records([row], joining_tokenizer(), CHATML, room)]
    assert [(e.num_trained, e.num_cut) for _, e in cut] == [(3, 4)]
    counts = save_tokens([(0, e) for e in whole] + [(1, whole[0])], tmp_path / "train.parquet")
    assert (counts.num_rows, counts.num_examples) == (2, 3)


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
    assert counts == TokenCounts(2, 2, 1, 2, 51, 9, 28)
    assert counts.metrics() == {
        "num_rows": 2,
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
    tokenizer, template = byte_tokenizer(), CHATML
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
