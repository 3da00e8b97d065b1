"""Every accepted format is read; every damaged file is refused with its place."""

import gzip
import json

import datasets
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_checks.intake.reading import _parse_exactly, _parse_fast, read_rows
from data_checks.intake.shaping import DEFECT, columns_of, shape_row
from sft_core.config import Columns, SourceConfig
from sft_core.errors import DataError

GOOD = '{"prompt": "a question", "completion": "an answer"}\n'
ROWS = [{"prompt": "one", "completion": "1"}, {"prompt": "two", "completion": "2"}]
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
LIMIT = 10_000_000


def bad_inputs():
    """Name, file name, content, part of the message."""
    yield "missing", "gone.jsonl", None, "no such file"
    yield "empty", "a.jsonl", b"", "no rows"
    yield "blank lines", "a.jsonl", b"\n\n", "no rows"
    yield "junk", "a.jsonl", bytes(range(256)) * 9, "line 1"
    yield "truncated", "a.jsonl", (GOOD * 2 + GOOD[:20]).encode(), "line 3, column"
    yield (
        "wrong encoding",
        "a.jsonl",
        GOOD.encode() + "é\n".encode("latin-1"),
        "line 2: byte 1 is not",
    )
    yield "utf-16", "a.jsonl", GOOD.encode("utf-16"), "is not UTF-8"
    yield (
        "duplicate keys",
        "a.jsonl",
        b'{"prompt": "a", "prompt": "b"}\n',
        "line 1: a key stands twice",
    )
    yield "huge number", "a.jsonl", b'{"prompt": ' + b"9" * 5_000 + b"}\n", "a number is too long"
    yield "not objects", "a.jsonl", b"[1]\n", "expected a JSON object"
    yield (
        "long line",
        "a.jsonl",
        b'{"prompt": "' + b"a" * 50_000_000 + b'"}',
        "longer than 10,000,000",
    )
    yield "cut gzip", "a.jsonl.gz", gzip.compress(GOOD.encode() * 99)[:-9], "cut off"
    yield "not gzip", "a.jsonl.gz", GOOD.encode(), "damaged"
    yield "uneven CSV", "a.csv", b"prompt,completion\na,b\nc\n", "line 3: 1 cells, expected 2"
    yield "twice a column", "a.csv", b"prompt,prompt\na,b\n", "column name stands twice"
    yield "not Parquet", "a.parquet", GOOD.encode(), "not a readable Parquet"
    yield "unknown suffix", "a.xlsx", GOOD.encode(), "allowed: .jsonl"


BAD = list(bad_inputs())


@pytest.mark.parametrize(
    ("name", "content", "message"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD]
)
def test_damage_stops_with_the_place_and_without_the_text(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as failure:
        list(read_rows(SourceConfig(path=str(path)), LIMIT))
    assert message in str(failure.value)
    assert name in str(failure.value)
    assert "an answer" not in str(failure.value)


KEYS = st.sampled_from(['"a"', '"b"', '"\\u0061"', '"\\""', '"\\\\"', '"a\\\\\\""', '"é"'])
GAP = st.sampled_from(["", " ", "\t "])


def objects(values):
    pairs = st.lists(st.tuples(GAP, KEYS, GAP, st.just(":"), GAP, values).map("".join), max_size=3)
    return pairs.map(lambda found: "{" + ",".join(found) + "}")


def arrays(values):
    return st.lists(values, max_size=3).map(lambda found: "[" + ", ".join(found) + "]")


SCALARS = KEYS | st.sampled_from(
    ["1", "1.5", "null", "123456789012345678901", '"\\ud800"', "-1e30"]
)
JSON = objects(st.recursive(SCALARS, lambda values: objects(values) | arrays(values)))


@given(JSON | st.text('"\\{}[]:,aé 0.1nul').map(lambda text: '{"a":' + text + "}"))
def test_the_fast_parser_agrees_with_the_exact_one_wherever_it_answers(line):
    found = _parse_fast(line.encode())
    if found is not None:
        assert repr(found) == repr(_parse_exactly("a.jsonl", 1, line))


@pytest.mark.parametrize(
    "line",
    [
        r'{"prompt": "say \"yes\": or \\", "turns": [{"role": "user"}, {"role": "x"}], "n": -1.5}',
        r'{"prompt" : "\u00e9\ud83d\ude00 é", "completion":""}',
        "{}",
    ],
)
def test_the_fast_parser_answers_for_usual_lines(line):
    assert _parse_fast(line.encode()) == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        '{"a": 1, "a": 2}',
        '{"a" : 1, "a":2}',
        '{"a": 1, "\\u0061": 2}',
        '{"x": [{"a": "b", "a": "b"}]}',
        '{"a\\\\": 1, "a\\\\": 1}',
    ],
)
def test_a_repeated_key_is_found_however_it_is_written(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    with pytest.raises(DataError, match="line 1: a key stands twice"):
        list(read_rows(SourceConfig(path=str(path)), LIMIT))


def test_a_long_integer_keeps_its_digits(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 123456789012345678901234567890}')
    assert list(read_rows(SourceConfig(path=str(path)), LIMIT)) == [
        (1, {"id": 123456789012345678901234567890})
    ]


def write_jsonl(path):
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_gzip(path):
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)


def write_dataset(path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", write_jsonl),
        ("a.jsonl.gz", write_gzip),
        ("a.csv", lambda path: pd.DataFrame(ROWS).to_csv(path, index=False)),
        ("a.csv.gz", lambda path: pd.DataFrame(ROWS).to_csv(path, index=False)),
        ("a.parquet", lambda path: pd.DataFrame(ROWS).to_parquet(path)),
        ("folder", write_dataset),
    ],
)
def test_each_format_gives_the_same_rows(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    assert [row for _, row in read_rows(SourceConfig(path=str(path)), LIMIT)] == ROWS


def test_lines_are_counted_in_the_file_and_blank_ones_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n" + GOOD.replace("\n", "\r\n").encode()
    )
    assert [line for line, _ in read_rows(SourceConfig(path=str(path)), LIMIT)] == [1, 3]


def test_a_quoted_line_break_in_csv_is_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\n"two\nlines",x\n\none,y\n')
    assert list(read_rows(SourceConfig(path=str(path)), LIMIT)) == [
        (2, {"prompt": "two\nlines", "completion": "x"}),  # where it begins
        (5, {"prompt": "one", "completion": "y"}),
    ]


def test_a_hub_id_is_asked_of_the_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="nor a hub data set that can be reached"):
        list(read_rows(SourceConfig(path="nobody/no-such-data"), LIMIT))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            {},
        ),
        ({"prompt": "q", "completion": "a"}, {}),
        ({"instruction": "q", "input": "", "output": "a"}, {}),
        ({"question": "q", "answer": "a"}, {}),
        ({"ask": "q", "reply": "a"}, {"prompt": "ask", "completion": "reply"}),
        ({"prompt": [{"role": "user", "content": "q"}], "completion": "a"}, {}),
    ],
)
def test_every_shape_becomes_the_same_messages(row, columns):
    source = SourceConfig(path="x.jsonl", columns=Columns(**columns))
    record = shape_row(0, row, columns_of(source, row), source)
    assert record.messages == CHAT


def test_instruction_and_input_are_joined_and_a_system_column_comes_first():
    source = SourceConfig(path="x.jsonl", columns=Columns(system="rule"))
    row = {"rule": "be brief", "instruction": "sum", "input": "1 2", "output": "3"}
    record = shape_row(0, row, columns_of(source, row), source)
    assert [m["content"] for m in record.messages] == ["be brief", "sum\n\n1 2", "3"]


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    source = SourceConfig(path="x.jsonl", columns=Columns(prompt="qestion", completion="answer"))
    with pytest.raises(DataError, match=r"no column 'qestion'.* Did you mean 'question'"):
        columns_of(source, {"question": "", "answer": ""})


def test_a_turn_that_calls_a_tool_is_not_taken_for_its_text():
    call = {"role": "assistant", "content": "Let me see.", "tool_calls": [{"function": "lookup"}]}
    plain = call | {"tool_calls": []}
    for turn, defect in ((call, "tool_calls"), (plain, None)):
        row = {"messages": [{"role": "user", "content": "q"}, turn]}
        record = shape_row(0, row, Columns(messages="messages"), SourceConfig(path="x.jsonl"))
        assert record.meta.get(DEFECT) == defect


@pytest.mark.parametrize(
    ("row", "defect"),
    [
        ({"prompt": "q"}, "missing_value"),
        ({"prompt": None, "completion": "a"}, "missing_value"),
        ({"prompt": "q", "completion": 3}, "wrong_type"),
        ({"prompt": "q", "completion": ["a"]}, "wrong_type"),
    ],
)
def test_a_row_that_does_not_fit_keeps_its_columns_for_quarantine(row, defect):
    source = SourceConfig(path="x.jsonl")
    columns = Columns(prompt="prompt", completion="completion")
    record = shape_row(7, row, columns, source)
    assert (record.row, record.meta[DEFECT], record.messages) == (7, defect, [])
    assert json.loads(record.meta["_raw"]) == row
    assert type(record).from_json(record.to_json()) == record


def test_a_column_that_only_later_rows_have_is_found_among_the_first_hundred():
    assert columns_of(SourceConfig(path="x.jsonl"), ["prompt", "completion"]).prompt == "prompt"


def test_names_of_columns_are_not_quoted_because_without_a_header_they_are_data():
    with pytest.raises(DataError) as failure:
        columns_of(SourceConfig(path="x.csv"), ["Jane Roe 078-05-1120", "Urgent"])
    assert "Jane" not in str(failure.value)
    assert "Urgent" not in str(failure.value)


def test_what_json_cannot_hold_is_kept_as_text():
    source = SourceConfig(path="x.jsonl", subgroups=("age",))
    columns = Columns(prompt="prompt", completion="completion")
    row = {"prompt": "half \ud800 pair", "completion": "a", "age": float("nan")}
    record = shape_row(0, row, columns, source)
    assert "\ufffd" in record.messages[0]["content"]
    assert record.meta == {"age": "nan"}
    assert type(record).from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("row", "columns"),
    [({"text": "Once.", "id": 3}, {}), ({"body": "Once."}, {"text": "body"})],
)
def test_plain_text_is_one_message_of_its_own_role(row, columns):
    source = SourceConfig(path="x.jsonl", columns=Columns(**columns))
    record = shape_row(0, row, columns_of(source, row), source)
    assert record.messages == [{"role": "text", "content": "Once."}]
    assert record.is_plain_text
    assert (record.prompt(), record.completion(), record.text()) == ([], "Once.", "Once.")


def test_a_conversation_comes_before_a_text_column():
    source = SourceConfig(path="x.jsonl")
    assert columns_of(source, ["text", "prompt", "completion"]).text is None
    assert columns_of(SourceConfig(path="x.jsonl", columns=Columns(text="text")), ["text"]).text


def test_a_conversation_cannot_pass_as_plain_text():
    row = {"messages": [{"role": "text", "content": "Once."}]}
    record = shape_row(0, row, Columns(messages="messages"), SourceConfig(path="x.jsonl"))
    assert record.meta[DEFECT] == "wrong_type"
    assert not record.is_plain_text


def test_a_text_column_and_columns_of_a_conversation_exclude_each_other():
    with pytest.raises(ValueError, match="plain text or a conversation"):
        Columns(text="text", system="rule")
    source = SourceConfig(path="x.jsonl", columns=Columns(system="rule"))
    with pytest.raises(DataError, match="no known shape"):
        columns_of(source, ["text", "rule"])
