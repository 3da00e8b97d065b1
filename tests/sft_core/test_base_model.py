from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration, ViTConfig, ViTModel

from sft_core.base_model import (
    check_base,
    context_length,
    is_encoder_decoder,
    load_base,
    load_tokenizer,
    locate_base,
    resolve_base,
    sha256_model,
)
from sft_core.config import ModelConfig
from sft_core.errors import ConfigError, IntegrityError, ModelError
from tests.sft_core.tiny_model import CONTEXT, STORIES, byte_tokenizer, stored_base, write_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    write_base(folder, byte_tokenizer())
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config(folder: Path, **values: object) -> ModelConfig:
    return ModelConfig.model_validate({"model_name_or_path": str(folder), **values})


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_base(config(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder_keeps_its_configured_name(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    folder, ref = resolve_base(ModelConfig(model_name_or_path="base"))
    assert ref.path == "base"
    assert ref.base is None
    assert ref.sha256 == sha256_model(base)
    assert locate_base(ref) == folder == Path("base")


def test_digest_covers_the_model_and_nothing_else(base: Path) -> None:
    before = sha256_model(base)
    (base / "README.md").write_text("A card.")
    (base / "onnx").mkdir()
    (base / "onnx" / "config.json").write_text("{}")
    assert sha256_model(base) == before
    edit(base / "generation_config.json", temperature=0.5)
    assert sha256_model(base) != before


def test_check_finds_a_changed_weight(base: Path) -> None:
    _, ref = resolve_base(config(base))
    assert check_base(ref) == base
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match=ref.sha256):
        check_base(ref)
    shutil.rmtree(base)
    with pytest.raises(ModelError, match="is gone"):
        check_base(ref)


def test_hub_id_from_the_cache_is_named_by_commit(base: Path, offline: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    stored = offline / "models--owner--tiny"
    shutil.copytree(base, stored / "snapshots" / commit)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    folder, ref = resolve_base(ModelConfig(model_name_or_path="owner/tiny"))
    assert ref.path == f"owner/tiny@{commit}"
    assert ref.sha256 == sha256_model(base)
    assert check_base(ref) == folder == stored / "snapshots" / commit
    with pytest.raises(ModelError, match="nor does its cache hold revision 'v2'"):
        resolve_base(ModelConfig(model_name_or_path="owner/tiny", revision="v2"))


def test_hub_out_of_reach(offline: Path) -> None:
    with pytest.raises(ModelError, match=r"hub cannot be reached.*local folder"):
        resolve_base(ModelConfig(model_name_or_path="owner/absent"))


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such", "./absent", "a b"])
def test_neither_folder_nor_hub_id(name: str, offline: Path) -> None:
    with pytest.raises(ModelError, match="no such folder, and not a hub id"):
        resolve_base(ModelConfig(model_name_or_path=name))


def test_file_instead_of_a_folder(base: Path) -> None:
    assert "is a file, expected a folder" in refused(base / "model.safetensors")


def test_folder_that_is_no_model(base: Path) -> None:
    (base / "config.json").unlink()
    assert "has no config.json" in refused(base)


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_damaged_config(base: Path, text: str) -> None:
    (base / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "config.json" in refused(base)


def test_pickled_weights_are_refused(base: Path) -> None:
    (base / "model.safetensors").unlink()
    assert "found none" in refused(base)
    (base / "pytorch_model.bin").write_bytes(b"")
    message = refused(base)
    assert "pytorch_model.bin" in message
    assert "save_pretrained" in message


def test_pickle_under_a_safe_name_runs_nothing(base: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.mkdir, (base / "owned",)

    (base / "model.safetensors").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        load_base(base, config(base))
    assert not (base / "owned").exists()


def test_truncated_weights(base: Path) -> None:
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        load_base(base, config(base))


def test_weights_that_are_missing_are_not_made_up(base: Path) -> None:
    edit(base / "config.json", num_hidden_layers=2)
    with pytest.raises(ModelError, match=r"9 weights .* model\.layers\.1\."):
        load_base(base, config(base))


def test_missing_shard(base: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "1 of 2 weight files are missing, first model-2.safetensors" in refused(base)


def test_missing_tokenizer(base: Path) -> None:
    (base / "tokenizer.json").unlink()
    (base / "tokenizer_config.json").unlink()
    assert "has no tokenizer" in refused(base)


def test_damaged_tokenizer(base: Path) -> None:
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        load_tokenizer(base, config(base))


def test_remote_code_is_off_by_default(base: Path) -> None:
    settings = base / "config.json"
    edit(settings, model_type="homemade", auto_map={"AutoConfig": "code.HomemadeConfig"})
    (base / "code.py").write_text("raise SystemExit('it ran')")
    assert "model.trust_remote_code: true" in refused(base)
    with pytest.raises(ModelError, match=r"model\.trust_remote_code: true"):
        context_length(base, config(base))


def test_adapter_is_no_base(base: Path) -> None:
    (base / "adapter_config.json").write_text("{}")
    assert "is an adapter" in refused(base)


def test_sequence_to_sequence_model_is_loaded_as_one(base: Path) -> None:
    assert not is_encoder_decoder(base, config(base))
    small = T5Config(vocab_size=300, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(small).save_pretrained(base)
    assert is_encoder_decoder(base, config(base))
    assert isinstance(load_base(base, config(base))[0], T5ForConditionalGeneration)


def test_model_that_writes_no_text(base: Path) -> None:
    small = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    ViTModel(small).save_pretrained(base)
    with pytest.raises(ModelError, match="cannot be loaded: Unrecognized configuration class"):
        load_base(base, config(base))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_four_bits_need_a_gpu(base: Path) -> None:
    named = config(base, load_in_4bit=True)
    for start in (lambda: resolve_base(named), lambda: load_base(base, named)):
        with pytest.raises(ConfigError, match=r"model\.load_in_4bit: .*NVIDIA GPU.*to false"):
            start()


def test_load(base: Path) -> None:
    model, tokenizer = load_base(base, config(base))
    assert not model.training
    assert model.dtype == torch.float32
    assert context_length(base, config(base)) == CONTEXT
    # Padding borrows the end-of-text token: 256 bytes and 4 special tokens, none is added.
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == model.config.pad_token_id
    assert tokenizer.padding_side == "right"
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == 260


def test_a_pad_token_of_its_own_stays(tmp_path: Path) -> None:
    named = write_base(tmp_path / "base", byte_tokenizer(pad_token="<s>"))
    assert load_tokenizer(tmp_path / "base", named).pad_token == "<s>"


def test_tokenizer_without_an_end(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    named = write_base(tmp_path / "base", tokenizer)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(ModelError, match="neither a pad_token nor an eos_token"):
        load_tokenizer(tmp_path / "base", named)


def test_tokenizer_of_a_larger_model(base: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(base)
    with pytest.raises(ModelError, match="knows 261 tokens, the model 260"):
        load_base(base, config(base))


def test_real_model() -> None:
    named = stored_base(STORIES)
    folder, ref = resolve_base(named)
    model, tokenizer = load_base(folder, named)
    assert len(ref.sha256) == 64
    assert context_length(folder, named) == 512
    ids = tokenizer("Once upon a time", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == ","
