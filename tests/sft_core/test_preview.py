"""The preview shows what trains, and what it estimates was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from sft_core.base_model import load_tokenizer, resolve_base
from sft_core.config import PipelineConfig, TrainingConfig
from sft_core.documents.preview_page import facts, render_preview, size
from sft_core.layout import IGNORED
from sft_core.preview import Preview, histogram, preview, row_lengths, token_texts
from sft_core.records import PLAIN_TEXT, Record
from sft_core.reports import StageReport
from sft_core.store import put_bytes, put_file
from sft_core.token_file import load_tokens, save_tokens
from sft_core.tokenization import encode, tokenize_records
from sft_core.training import rehearsal
from sft_core.training.estimate import Measured
from sft_core.training.rehearsal import rehearse
from sft_core.training.trainer import build_trainer, train_adapter
from tests.conftest import put_records
from tests.sft_core.tiny_model import (
    CHATML,
    CONTEXT,
    DEMO,
    STORIES,
    byte_tokenizer,
    record,
    stored_base,
    write_base,
)

# 10 + 10 + 2 * i characters around the markup: rows of many lengths, the last one cut.
RECORDS = [record(i, "q" * (10 + 5 * i), f"<b>{i}</b>", "x", "y") for i in range(9)]
RECORDS.append(record(9, "a", "z" * 200))
TRAINING = TrainingConfig(per_device_train_batch_size=4, num_train_epochs=2)


def tokenised(folder: Path, records: list[Record], training: TrainingConfig = TRAINING):
    """A base, a config that names it, and the report of the stage `tokenize`, made by its parts."""
    model = write_base(folder / "base", byte_tokenizer())
    config = PipelineConfig(model=model, training=training)
    path = folder / "train.parquet"
    counts = save_tokens(tokenize_records(records, byte_tokenizer(), CHATML, CONTEXT), path)
    report = StageReport(
        stage="tokenize",
        metrics=counts.metrics() | {"max_length": CONTEXT},
        models={"base": resolve_base(model)[1]},
        files={"chat_template": put_bytes(CHATML.encode(), ".jinja")},
        private={"train": put_file(path)},
    )
    return config, report, path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Preview:
    folder = tmp_path_factory.mktemp("preview")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNETRAIL_HOME", str(folder / "home"))
        config, report, _ = tokenised(folder, RECORDS)
        return preview(config, report, put_records(RECORDS), num_rows=100)


def test_every_row_is_shown_as_it_is_trained(found: Preview) -> None:
    assert [row.row for row in found.rows] == list(range(10))
    tokenizer = byte_tokenizer()
    for row, shown in zip(RECORDS, found.rows, strict=True):
        example = encode(row.messages, tokenizer, CHATML, CONTEXT)
        for trained in (True, False):
            ids = [
                token
                for token, label in zip(example.input_ids, example.labels, strict=True)
                if (label != IGNORED) == trained
            ]
            spans = [span for span in shown.spans if span.trained == trained]
            assert "".join(t for span in spans for t in span.texts) == tokenizer.decode(ids)
        assert (shown.num_tokens, shown.num_trained) == (len(example.labels), example.num_trained)
        assert (shown.num_cut, shown.row_id) == (example.num_cut, row.row_id)


def test_counts(found: Preview) -> None:
    # The cut row loses its end of turn: "\n<|im_start|>user\na<|im_end|>..." and 200 z's.
    assert (found.num_rows, found.num_rows_ending, found.num_rows_cut) == (10, 9, 1)
    whole = encode(RECORDS[9].messages, byte_tokenizer(), CHATML, 10_000)
    assert found.num_cut_tokens == len(whole.input_ids) - CONTEXT
    assert sum(part.num_rows for part in found.lengths) == 10
    assert found.lengths[-1].last == CONTEXT
    assert found.template == "the model's"
    tokens = {token.role: token.text for token in found.special_tokens}
    assert tokens["end of turn"] == "<|im_end|>"
    assert tokens["other"] == "<|im_start|>"


def test_estimate(found: Preview) -> None:
    estimate = found.estimate
    # 10 rows in batches of 4 are 3 steps an epoch.
    assert (estimate.num_steps, estimate.num_batches, estimate.num_sampled) == (6, 6, 3)
    assert [one.num_rows for one in estimate.measured] == [1, 2, 4, 4]
    assert estimate.measured[0].num_tokens == CONTEXT
    assert estimate.measured[3].num_tokens == 4 * CONTEXT
    assert estimate.peak_bytes == max(one.peak_bytes for one in estimate.measured)
    assert estimate.basis == "measured on the largest batch"
    assert estimate.verdict == "fits"
    assert 0.0 < estimate.padding_rate < 0.5
    real = estimate.tokens_per_batch * (1 - estimate.padding_rate)
    assert real == pytest.approx(found.num_tokens / 3)
    seconds = [one.seconds for one in estimate.measured]
    assert 6 * min(seconds) <= estimate.seconds <= 6 * max(seconds)


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_accumulation_steps": 2}, {"max_steps": 5}, {"num_train_epochs": 1.5}],
    ids=str,
)
def test_steps_are_those_that_training_makes(
    changes: dict[str, float], tmp_path: Path, home: Path
) -> None:
    training = TRAINING.model_copy(update=changes)
    config, _, path = tokenised(tmp_path, RECORDS, training)
    base = Path(config.model.model_name_or_path)
    parts = (training, config.model)
    data = load_tokens(path, tmp_path)
    trainer, _ = build_trainer(
        base, data, None, *parts, chat_template=CHATML, seed=0, output=tmp_path / "a"
    )
    estimate = rehearse(trainer, row_lengths(path))
    made = train_adapter(
        base, path, None, *parts, chat_template=CHATML, seed=0, output=tmp_path / "b"
    )
    assert estimate.num_steps == made.metrics["num_steps"]


def test_a_batch_that_cannot_fit_is_not_tried(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory of this machine is taken to be little more than what two rows need."""
    config, _, path = tokenised(tmp_path, RECORDS)
    trainer, _ = build_trainer(
        Path(config.model.model_name_or_path),
        load_tokens(path, tmp_path),
        None,
        TRAINING,
        config.model,
        chat_template=CHATML,
        seed=0,
        output=tmp_path,
    )
    monkeypatch.setattr(rehearsal, "available_bytes", lambda: 1 << 20)
    estimate = rehearse(trainer, row_lengths(path))
    assert estimate.verdict == "does not fit"
    assert [one.what for one in estimate.measured] == ["one longest row"]
    assert estimate.seconds is None


def test_peak_is_extrapolated_by_rows() -> None:
    def measured(num_rows: int, peak: int) -> Measured:
        return Measured(what="", num_rows=num_rows, num_tokens=1, seconds=1.0, peak_bytes=peak)

    one, two, typical = measured(1, 100), measured(2, 130), measured(16, 300)
    assert rehearsal._peak_of([one], 16) == 100
    assert rehearsal._peak_of([one, two], 16) == 130 + 14 * 30
    assert rehearsal._peak_of([one, two, typical], 16) == 550
    assert rehearsal._peak_of([one, two, typical, measured(16, 500)], 16) == 500
    assert rehearsal._peak_of([one, two], 1) == 130


def test_time_lies_between_measured_sizes() -> None:
    points = [
        Measured(what="", num_rows=1, num_tokens=n, seconds=s, peak_bytes=1)
        for n, s in ((100, 1.0), (300, 2.0))
    ]
    # 50 counts as the smallest, 200 is half way: (1 + 1.5 + 2) / 3.
    assert rehearsal._mean_seconds(points, [50, 200, 300]) == pytest.approx(1.5)


@pytest.mark.parametrize(("peak", "verdict"), [(79, "fits"), (81, "tight"), (101, "does not fit")])
def test_verdict(peak: int, verdict: str, found: Preview) -> None:
    limits = {"peak_bytes": peak, "available_bytes": 100}
    assert found.estimate.model_copy(update=limits).verdict == verdict


@pytest.mark.parametrize("folder", [STORIES, DEMO], ids=["stories260K", "demo"])
@pytest.mark.parametrize("text", ["Où est-ce ?\n À côté — 42 ½ 🙂", " two  spaces ", "🙂🙂", ""])
def test_texts_of_tokens_make_the_text(folder: Path, text: str) -> None:
    tokenizer = load_tokenizer(folder, stored_base(folder))
    ids = tokenizer(text)["input_ids"]
    texts = token_texts(ids, tokenizer)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids)


def test_a_character_that_is_cut_off_still_shows() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("a🙂")["input_ids"][:-1]
    assert "".join(token_texts(ids, tokenizer)) == tokenizer.decode(ids) == "a\ufffd"


def test_histogram_covers_all_lengths() -> None:
    bins = list(histogram([3, 3, 4, 30]))
    assert [(b.first, b.last, b.num_rows) for b in bins[:2]] == [(3, 5, 3), (6, 8, 0)]
    assert bins[-1].last == 30
    assert sum(b.num_rows for b in bins) == 4
    assert [(b.first, b.last, b.num_rows) for b in histogram([7])] == [(7, 7, 1)]


def test_page_escapes_the_rows_and_loads_nothing(found: Preview) -> None:
    page = render_preview(found)
    assert "<b>" not in page
    assert "&lt;" in page
    assert "default-src 'none'" in page
    for word in ("<script", "http:", "https:", "url("):
        assert word not in page.replace("http-equiv", "")


def test_facts(found: Preview) -> None:
    told = dict(facts(found))
    assert told["end of turn"] == "trained in 9 of 10 rows"
    assert told["rows cut"].startswith("1 of 10 to 128 tokens, by ")
    assert told["steps"] == "6 updates, 6 batches of 329 tokens on average"
    assert told["memory"].startswith("fits: peak ")
    slow = found.estimate.model_copy(update={"seconds": 3_725.0})
    assert "about 1 h 2 min of" in dict(facts(found.model_copy(update={"estimate": slow})))["time"]
    assert (size(2**30), size(3 * 2**19)) == ("1.00 GiB", "2 MiB")


def test_packed_rows_and_rows_of_several_examples_are_shown_one_by_one(
    home: Path, tmp_path: Path
) -> None:
    text = Record(3, "f" * 64, [{"role": PLAIN_TEXT, "content": "abcdefgh" * 40}])
    config, report, path = tokenised(tmp_path, [text], TrainingConfig(packing=True))
    found = preview(config, report, put_records([text]), num_rows=10)
    # 320 letters and an end are three windows of at most 127 tokens after the start.
    assert [(row.row, row.num_tokens) for row in found.rows] == [(3, CONTEXT)] * 3
    assert found.estimate.padding_rate == 0.0
    assert found.estimate.tokens_per_batch == found.num_tokens == sum(row_lengths(path))
