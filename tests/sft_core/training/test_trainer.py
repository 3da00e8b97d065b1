from __future__ import annotations

import io
import json
import math
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm import tqdm

from sft_core.base_model import load_base
from sft_core.config import LoraSection, ModelConfig, TrainingConfig
from sft_core.errors import ConfigError, DataError, ModelError, TuneTrailError
from sft_core.evaluation.likelihood import label_likelihood
from sft_core.records import Record
from sft_core.store import sha256_tree
from sft_core.token_file import save_tokens
from sft_core.tokenization import Example, encode, prompt_ids, tokenize_records
from sft_core.training import trainer
from sft_core.training.adapters import load_tuned
from sft_core.training.trainer import Training, train_adapter
from tests.sft_core.tiny_model import (
    CHATML,
    CONTEXT,
    STORIES,
    byte_tokenizer,
    record,
    stored_base,
    write_base,
    write_granite,
)

# PEFT 0.21 asks transformers 5.23 by the old name of a property.
CONFIG = TrainingConfig(
    num_train_epochs=30,
    per_device_train_batch_size=4,
    learning_rate=1e-2,
    lr_scheduler_type="constant",
    logging_steps=10,
)
RECORDS = [record(i, "abcdef"[i] * 9, f"{'ABCDEF'[i]}{i * i}") for i in range(6)]


@dataclass(frozen=True)
class Run:
    folder: Path
    model: ModelConfig
    training: Training
    progress: list[dict[str, float]]


def run(folder: Path, config: TrainingConfig = CONFIG, **changes: Any) -> Run:
    """Train the tiny base on the records and validate on the first four."""
    base = folder / "base"
    model = write_base(base, byte_tokenizer(), scale=changes.pop("scale", 4.0))
    progress: list[dict[str, float]] = []
    values = {
        "base_folder": base,
        "train_tokens": tokens(changes.pop("records", RECORDS), folder / "train.parquet"),
        "validation_tokens": tokens(RECORDS[:4], folder / "validation.parquet"),
        "config": config,
        "model_config": model,
        "chat_template": CHATML,
        "seed": 7,
        "output": folder / "work",
        "on_progress": progress.append,
    }
    return Run(folder, model, train_adapter(**{**values, **changes}), progress)


def tokens(records: list[Record], path: Path) -> Path:
    save_tokens(tokenize_records(records, byte_tokenizer(), CHATML, CONTEXT), path)
    return path


def short(**values: Any) -> TrainingConfig:
    return CONFIG.model_copy(update={"max_steps": 2, "logging_steps": 1, **values})


def held_out_loss(model: Any, records: list[Record]) -> float:
    """Mean over all labelled tokens, computed without the trainer."""
    examples = [encode(r.messages, byte_tokenizer(), CHATML, CONTEXT) for r in records]
    ids, labels = [e.input_ids for e in examples], [e.labels for e in examples]
    return label_likelihood(model, ids, labels).loss


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A second thread costs a model this small more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("trained"))


def test_it_learns_the_rows(trained: Run) -> None:
    model, tokenizer = load_tuned(trained.folder / "base", trained.training.adapter, trained.model)
    for row in RECORDS:
        prompt = prompt_ids(row.prompt(), tokenizer, CHATML)
        answer = tokenizer(row.completion())["input_ids"]
        ids = torch.tensor([prompt + answer])
        with torch.inference_mode():
            found = model(ids).logits[0, len(prompt) - 1 :].argmax(-1).tolist()
        assert tokenizer.decode(found) == row.completion() + "<|im_end|>"


def test_curves(trained: Run) -> None:
    series = trained.training.series
    # 6 rows in batches of 4 are 2 steps an epoch: 60 steps, a point each 10.
    assert [step for step, _ in series["loss"]] == [10, 20, 30, 40, 50, 60]
    assert [step for step, _ in series["eval_loss"]] == list(range(0, 61, 2))
    assert series["loss"][-1][1] < 0.1 * series["loss"][0][1]
    assert all(value > 0 for _, value in series["grad_norm"])
    assert max(value for _, value in series["learning_rate"]) <= CONFIG.learning_rate


def test_held_out_loss_is_the_masked_one_of_base_and_tuned(trained: Run) -> None:
    curve = trained.training.series["eval_loss"]
    model, _ = load_base(trained.folder / "base", trained.model)
    # The trainer averages over batches; four rows are one batch.
    assert held_out_loss(model, RECORDS[:4]) == pytest.approx(curve[0][1], rel=1e-5)
    tuned, _ = load_tuned(trained.folder / "base", trained.training.adapter, trained.model)
    assert held_out_loss(tuned, RECORDS[:4]) == pytest.approx(curve[-1][1], rel=1e-4)


def test_adapter_off_is_the_base(trained: Run) -> None:
    base, _ = load_base(trained.folder / "base", trained.model)
    tuned, tokenizer = load_tuned(trained.folder / "base", trained.training.adapter, trained.model)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        with tuned.disable_adapter():
            assert torch.equal(tuned(ids).logits, base(ids).logits)
        assert not torch.equal(tuned(ids).logits, base(ids).logits)
    assert not tuned.training
    assert tokenizer.chat_template == CHATML


def test_metrics(trained: Run) -> None:
    metrics = trained.training.metrics
    lengths = [len(encode(r.messages, byte_tokenizer(), CHATML, CONTEXT).labels) for r in RECORDS]
    assert metrics["num_steps"] == 60
    assert metrics["num_train_tokens"] == 30 * sum(lengths)
    # Rank 16 on 4 attention matrices of 32 x 32 and 3 MLP matrices of 32 x 64:
    # 16 * (4 * 64 + 3 * 96) = 8,704.
    assert metrics["num_trainable_parameters"] == 8_704
    assert 0.0 < metrics["trainable_rate"] < 1.0
    assert metrics["total_flops"] > 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert trained.training.timings["tokens_per_second"] > 0
    assert not set(trained.training.timings) & set(metrics)


def test_progress(trained: Run) -> None:
    steps = [entry["step"] for entry in trained.progress if "loss" in entry]
    assert steps == [10, 20, 30, 40, 50, 60]
    assert {entry["max_steps"] for entry in trained.progress} == {60}


def test_adapter_folder_is_clean(trained: Run) -> None:
    files = {p.name for p in trained.training.adapter.iterdir()}
    assert files == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    settings = json.loads((trained.training.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == trained.model.model_name_or_path
    modules = settings["target_modules"]
    assert modules == sorted(modules)
    assert len(modules) == 7  # all linear layers of a Llama block; the head is none of them
    everything = [p for p in (trained.folder / "work").rglob("*") if p.is_file()]
    assert not [p for p in everything if p.suffix in (".bin", ".pkl")]


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    config = short(max_steps=6, lora=LoraSection(lora_dropout=0.1))
    first, again = run(tmp_path / "a", config), run(tmp_path / "b", config)
    other = run(tmp_path / "c", config, seed=8)
    # The configured name of the base, a path here, is part of the adapter.
    for one in (first, again, other):
        (one.training.adapter / "adapter_config.json").unlink()
    assert sha256_tree(first.training.adapter) == sha256_tree(again.training.adapter)
    assert sha256_tree(first.training.adapter) != sha256_tree(other.training.adapter)
    assert first.training.metrics == again.training.metrics
    assert first.training.series == again.training.series


def test_training_loss_is_the_masked_one(tmp_path: Path) -> None:
    """The first step, over all rows, has the base's loss on the labels and on nothing else."""
    one = run(tmp_path, short(max_steps=1, per_device_train_batch_size=6))
    model, _ = load_base(tmp_path / "base", one.model)
    loss = one.training.series["loss"][0][1]
    assert loss == pytest.approx(held_out_loss(model, RECORDS), rel=1e-5)


def test_options(tmp_path: Path) -> None:
    config = short(
        bf16=True,
        gradient_checkpointing=True,
        gradient_accumulation_steps=2,
        lora=LoraSection(r=4, target_modules=("q_proj",)),
    )
    one = run(tmp_path, config, validation_tokens=None, on_progress=None)
    training = one.training
    assert "eval_loss" not in training.series
    assert training.metrics["num_trainable_parameters"] == 4 * (32 + 32)
    assert training.timings["eval_seconds"] == 0
    # The final loss is that of the weights as they are saved, without bfloat16 autocast.
    tuned, _ = load_tuned(tmp_path / "base", training.adapter, one.model)
    assert training.metrics["final_loss"] == held_out_loss(tuned, RECORDS)


def test_bf16_learns_the_same_curve(tmp_path: Path) -> None:
    """Nearer to float32 than another seed is: the difference is within the noise of a run."""
    config = short(max_steps=30)
    exact = run(tmp_path / "a", config).training
    other = run(tmp_path / "b", config, seed=8).training
    rough = run(tmp_path / "c", short(max_steps=30, bf16=True)).training
    again = run(tmp_path / "d", short(max_steps=30, bf16=True)).training
    losses, others, roughs = (
        torch.tensor([value for _, value in one.series["eval_loss"]])
        for one in (exact, other, rough)
    )
    assert (roughs - losses).abs().mean() < (others - losses).abs().mean()
    assert roughs[-1] < 0.5 * roughs[0]
    assert (exact.metrics["bf16"], rough.metrics["bf16"]) == (0.0, 1.0)
    assert again.series == rough.series


def test_rows_of_like_length_share_a_batch_within_the_token_budget(tmp_path: Path) -> None:
    records = [record(i, "q", "ab" * (1 + i % 10)) for i in range(40)]
    lengths = [len(encode(r.messages, byte_tokenizer(), CHATML, CONTEXT).labels) for r in records]
    config = short(max_steps=-1, num_train_epochs=2, max_tokens_per_batch=200)
    training = run(tmp_path, config, records=records).training
    # Ten lengths, four rows of each; four rows are the most, or as many as fit into 200 tokens.
    num_batches = sum(math.ceil(4 / min(4, 200 // length)) for length in set(lengths))
    assert training.metrics["num_steps"] <= 2 * num_batches
    assert training.metrics["num_train_tokens"] == 2 * sum(lengths)
    assert training.metrics["padding_rate"] < 0.05


def test_held_out_loss_is_over_all_tokens_whatever_the_batches(tmp_path: Path) -> None:
    records = [record(i, "q", "xyz"[i % 3] * (1 + 6 * i)) for i in range(7)]
    one = run(
        tmp_path,
        short(max_tokens_per_batch=120),
        validation_tokens=tokens(records, tmp_path / "held_out.parquet"),
    )
    model, _ = load_base(tmp_path / "base", one.model)
    first = one.training.series["eval_loss"][0][1]
    assert first == pytest.approx(held_out_loss(model, records), rel=1e-5)


def test_model_with_scaled_logits_trains_on_its_own_loss(tmp_path: Path) -> None:
    """Its logits are not the head's product alone, so TRL's loss stands in for ours."""
    base = tmp_path / "base"
    named = write_granite(base, byte_tokenizer())
    training = train_adapter(
        base,
        tokens(RECORDS, tmp_path / "train.parquet"),
        tokens(RECORDS, tmp_path / "validation.parquet"),
        short(max_steps=1, per_device_train_batch_size=6),
        named,
        chat_template=CHATML,
        seed=7,
        output=tmp_path / "work",
    )
    expected = held_out_loss(load_base(base, named)[0], RECORDS)
    assert training.series["loss"][0][1] == pytest.approx(expected, rel=1e-5)
    assert training.series["eval_loss"][0][1] == pytest.approx(expected, rel=1e-5)


def test_gradient_checkpointing_changes_no_number(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", short())
    saved = run(tmp_path / "b", short(gradient_checkpointing=True))
    losses = [[value for _, value in one.training.series["loss"]] for one in (plain, saved)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("name", ["no_such_layer", "lm_head"])
def test_target_that_cannot_be_trained(name: str, tmp_path: Path) -> None:
    config = short(lora=LoraSection(target_modules=(name,)))
    with pytest.raises(ConfigError, match=rf"^training: .*{name}"):
        run(tmp_path, config)


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 rows to train on"):
        run(tmp_path, records=[])


def test_divergence_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match=r"is (nan|inf) at step \d.*training\.learning_rate"):
        run(tmp_path, short(), scale=1e30)
    assert not (tmp_path / "work" / "adapter").exists()


def test_a_loss_that_explodes_ends_the_run(tmp_path: Path) -> None:
    """The held-out answers are the base's own, so that their loss is small at first."""
    model, _ = load_base(tmp_path, write_base(tmp_path, byte_tokenizer(), scale=16.0))
    ids = byte_tokenizer()("question")["input_ids"]
    start = len(ids)
    with torch.inference_mode():
        while len(ids) < start + 8:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    known = tmp_path / "known.parquet"
    save_tokens([(0, Example(ids, [-100] * start + ids[start:], num_cut=0))], known)
    wild = CONFIG.model_copy(update={"learning_rate": 0.3})
    with pytest.raises(TuneTrailError, match=r"eval_loss is .* at step \d+ of 60, .*diverged"):
        run(tmp_path, wild, scale=16.0, validation_tokens=known)
    assert not (tmp_path / "work" / "adapter").exists()


def test_nothing_calls_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: called.append(args))
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: called.append(address))
    run(tmp_path, short())
    assert called == []


def test_adapter_that_cannot_be_loaded(trained: Run, tmp_path: Path) -> None:
    base = trained.folder / "base"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in trained.training.adapter.iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match="adapter: the adapter cannot be put on"):
        load_tuned(base, adapter, trained.model)
    weights.rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors"):
        load_tuned(base, adapter, trained.model)


def test_real_model(tmp_path: Path) -> None:
    named = stored_base(STORIES)
    tokenizer = load_base(STORIES, named)[1]
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% if m['role'] == "
    template += "'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    path = tmp_path / "train.parquet"
    save_tokens(tokenize_records(RECORDS, tokenizer, template, 512), path)
    config = short(max_steps=20, learning_rate=5e-3)
    training = run(
        tmp_path,
        config,
        base_folder=STORIES,
        model_config=named,
        train_tokens=path,
        validation_tokens=path,
        chat_template=template,
    ).training
    assert training.series["eval_loss"][-1][1] < 0.5 * training.series["eval_loss"][0][1]


def test_the_bar_shows_the_loss_and_prints_no_lines() -> None:
    shown = io.StringIO()
    bar = trainer._bar()
    bar.training_bar = tqdm(total=4, file=shown)
    for logs in ({"eval_loss": 6.25}, {"loss": 0.12346, "grad_norm": 1.5}):
        bar.on_log(None, None, None, logs=logs)
    assert "loss=0.1235" in shown.getvalue()
    assert "eval_loss" not in shown.getvalue()
    assert "\n" not in shown.getvalue()
