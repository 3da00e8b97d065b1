"""An exported model works without us, and a merged one says what base and adapter say."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sft_core.base_model import check_base, resolve_base
from sft_core.config import ModelConfig, TokenizationConfig, TrainingConfig
from sft_core.errors import ConfigError, IntegrityError
from sft_core.layout import CAUSAL, SEQ2SEQ, Layout
from sft_core.reports import RunRecord, StageReport
from sft_core.store import locate, put_bytes, put_file, put_tree, sha256_tree
from sft_core.token_file import save_tokens
from sft_core.tokenization import chat_template, encode, tokenize_records
from sft_core.training import export as exporting
from sft_core.training.adapters import load_tuned
from sft_core.training.export import export
from sft_core.training.trainer import train_adapter
from tests.sft_core.small_record import small_record, with_report
from tests.sft_core.tiny_model import CHATML, CONTEXT, byte_tokenizer, record, write_base, write_t5

RECORDS = [record(i, "abcdef"[i] * 9, f"{'ABCDEF'[i]}{i * i}") for i in range(6)]
TRAINING = TrainingConfig(max_steps=6, learning_rate=1e-2)


@dataclass(frozen=True)
class Made:
    record: RunRecord
    model: ModelConfig
    home: Path


@pytest.fixture(scope="module")
def home_of_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export") / "home"


@pytest.fixture(scope="module")
def made(home_of_module: Path) -> Made:
    """A run's record around a tuned tiny base, all of it in a store."""
    folder = home_of_module.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNETRAIL_HOME", str(home_of_module))
        model = write_base(folder / "base", byte_tokenizer())
        return Made(make(folder, model, CHATML, CAUSAL), model, home_of_module)


def make(folder: Path, model: ModelConfig, template: str, layout: Layout) -> RunRecord:
    _, base = resolve_base(model)
    tokens = folder / "train.parquet"
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path)
    save_tokens(tokenize_records(RECORDS, tokenizer, template, CONTEXT, layout), tokens)
    trained = train_adapter(
        Path(model.model_name_or_path),
        tokens,
        None,
        TRAINING,
        model,
        chat_template=template,
        seed=0,
        output=folder / "work",
    )
    adapter = put_tree(trained.adapter, base=base.sha256)
    record = small_record(model=model.model_dump(mode="json"))
    card = {"README": put_bytes(b"# the card\n", ".md")}
    plot = {"loss": put_bytes(b"a plot", ".png")}
    for report in (
        StageReport(stage="tokenize", private={"train": put_file(tokens)}),
        StageReport(stage="train", models={"base": base, "adapter": adapter}),
        StageReport(stage="model_card", files=card, figures=plot),
    ):
        record = with_report(record, report)
    return record


@pytest.fixture(autouse=True)
def same_home(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNETRAIL_HOME", str(made.home))


def test_results_go_where_the_hub_looks_for_them(made: Made, tmp_path: Path) -> None:
    results = {"eval_results": put_bytes(b"[]\n", ".yaml")}
    record = with_report(made.record, StageReport(stage="exports", files=results))
    export(record, tmp_path / "adapter", merge=False)
    assert (tmp_path / "adapter/.eval_results/held_out.yaml").read_bytes() == b"[]\n"


def test_an_adapter_leaves_as_it_is_with_its_card(made: Made, tmp_path: Path) -> None:
    assert export(made.record, tmp_path / "out" / "adapter", merge=False) is None
    out = tmp_path / "out" / "adapter"
    assert (out / "README.md").read_text() == "# the card\n"
    assert (out / "loss.png").read_bytes() == b"a plot"
    for name in ("README.md", "loss.png"):
        (out / name).unlink()
    report = made.record.report("train")
    assert report is not None
    assert sha256_tree(out) == report.models["adapter"].sha256
    assert os.listdir(tmp_path / "out") == ["adapter"]


def test_a_merged_model_needs_no_adapter_and_no_code_of_ours(made: Made, tmp_path: Path) -> None:
    difference = export(made.record, tmp_path / "merged", merge=True)
    assert difference is not None
    assert difference <= 1e-3
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "merged"), local_files_only=True)
    assert tokenizer.chat_template == CHATML
    report = made.record.report("train")
    assert report is not None
    tuned, _ = load_tuned(
        check_base(report.models["base"]), locate(report.models["adapter"]), made.model
    )
    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), local_files_only=True)
    for row in RECORDS:
        ids = torch.tensor([encode(row.messages, tokenizer, CHATML, CONTEXT).input_ids])
        with torch.inference_mode():
            found, expected = merged(ids).logits, tuned(ids).logits
            with tuned.disable_adapter():
                base = tuned(ids).logits
        assert torch.allclose(found, expected, atol=1e-3)
        assert not torch.allclose(found, base, atol=0.1)
    files = {path.suffix for path in (tmp_path / "merged").iterdir()}
    assert files == {".safetensors", ".json", ".jinja", ".md", ".png"}


def test_an_encoder_decoder_is_merged_too(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(template=None, pad_token="<s>")
    template = chat_template(tokenizer, TokenizationConfig(), SEQ2SEQ)
    record = make(tmp_path, write_t5(tmp_path / "base", tokenizer), template, SEQ2SEQ)
    difference = export(record, tmp_path / "merged", merge=True)
    assert difference is not None
    assert difference < 1e-3
    assert (tmp_path / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize("method", ["NONE", "PROMPT_TUNING", "PREFIX_TUNING"])
def test_what_cannot_be_merged_is_refused(made: Made, method: str, tmp_path: Path) -> None:
    training = made.record.config["training"] | {"peft_type": method}
    other = made.record.model_copy(update={"config": made.record.config | {"training": training}})
    with pytest.raises(ConfigError, match=f"this run trained {method}. Export without --merge"):
        export(other, tmp_path / "out", merge=True)
    assert list(tmp_path.iterdir()) == []


def test_a_merged_model_that_differs_is_not_written(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_MAX_DIFFERENCE", -1.0)
    with pytest.raises(IntegrityError, match=r"export: a logit of the merged model differs by"):
        export(made.record, tmp_path / "merged", merge=True)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match=r"mine: exists and was left alone"):
        export(made.record, tmp_path / "mine", merge=False)
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_run_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="made no model"):
        export(small_record(), tmp_path / "out", merge=False)
    assert not (tmp_path / "out").exists()


def test_a_damaged_adapter_is_not_exported(made: Made, tmp_path: Path) -> None:
    report = made.record.report("train")
    assert report is not None
    weights = locate(report.models["adapter"]) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    try:
        with pytest.raises(IntegrityError, match="SHA-256"):
            export(made.record, tmp_path / "out", merge=False)
    finally:
        weights.write_bytes(whole)
    assert not (tmp_path / "out").exists()


def test_the_verb(made: Made, tmp_path: Path) -> None:
    folder = made.home / "runs" / made.record.run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(made.record.model_dump_json())
    command = [sys.executable, "-m", "flows.cli", "export"]
    out = str(tmp_path / "out")
    done = subprocess.run(
        [*command, made.record.run_id, out, "--merge"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "verdict of the run: fail" in done.stdout
    assert "no logit differs by more than" in done.stdout
    assert "Warning" not in done.stderr
    unknown = subprocess.run([*command, "nowhere", out], capture_output=True, text=True)
    assert unknown.returncode == 2
    assert unknown.stderr == "tunetrail: export: no run nowhere has a record here.\n"
