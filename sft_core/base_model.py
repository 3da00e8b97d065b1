"""The base model: found, checked and named by content before any work, and loaded when needed.

Only safetensors weights are read, because unpickling a checkpoint runs code. Finding and checking a
model imports no torch (but to look for a GPU, where 4-bit weights are asked for), so that a wrong
path fails in a second.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_core.config import ModelConfig
from sft_core.errors import ConfigError, IntegrityError, ModelError
from sft_core.hub import download_model
from sft_core.records import sha256_json
from sft_core.reports import ModelRef
from sft_core.store import sha256_file

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "*.safetensors",
    "*.safetensors.index.json",
    "*.py",
)
"""What makes a model folder the model that it is; a README or a log is not part of it."""
_TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.*", "tokenizer_config.json")
_PICKLE_FILES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_HINT = "Set model.model_name_or_path to a folder or a hub id with safetensors weights."


def resolve_base(config: ModelConfig) -> tuple[Path, ModelRef]:
    """Folder of the base model, downloaded if it is a hub id, and its name by content.

    The reference keeps the name as configured, and for a hub id `id@commit`, so that a branch that
    moves later does not change what a record says.

    Raises:
        ModelError: there is no such model, it cannot be reached, or it is not safe to load.
        ConfigError: 4-bit weights are asked for, and this machine cannot hold them.
    """
    if config.load_in_4bit:
        _check_quantization()
    local = Path(config.model_name_or_path).expanduser()
    if local.is_dir():
        folder, name = local, config.model_name_or_path
    elif local.exists():
        raise ModelError(f"{config.model_name_or_path}: is a file, expected a folder. {_HINT}")
    else:
        folder = download_model(config.model_name_or_path, config.revision, MODEL_FILES)
        name = f"{config.model_name_or_path}@{folder.name}"
    _check_folder(folder, config)
    return folder, ModelRef(path=name, sha256=sha256_model(folder))


def locate_base(ref: ModelRef) -> Path:
    """Folder that a reference made by `resolve_base` points to.

    Raises:
        ModelError: it is gone, or the hub cannot be reached and the cache does not hold it.
    """
    folder = Path(ref.path).expanduser()
    if folder.is_dir():
        return folder
    name, at, commit = ref.path.rpartition("@")
    if not at:
        raise ModelError(f"{ref.path}: the folder of the base model is gone. Put it back.")
    return download_model(name, commit, MODEL_FILES)


def check_base(ref: ModelRef) -> Path:
    """Compare a base model with its digest; returns its folder.

    Raises:
        IntegrityError: the content differs from what the reference names.
        ModelError: as `locate_base`.
    """
    folder = locate_base(ref)
    found = sha256_model(folder)
    if found != ref.sha256:
        raise IntegrityError(f"{ref.path}: SHA-256 is {found}, expected {ref.sha256}.")
    return folder


def sha256_model(folder: Path) -> str:
    """SHA-256 over the sorted names and digests of the files that make the model, and no others.

    Subfolders, which hold exports to other formats, do not count.
    """
    files = {p for pattern in MODEL_FILES for p in folder.glob(pattern) if p.is_file()}
    return sha256_json([[p.name, sha256_file(p)] for p in sorted(files)])


def context_length(folder: Path, config: ModelConfig) -> int | None:
    """Most tokens the model was built for; None where its config does not say."""
    length = getattr(_model_config(folder, config), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def is_encoder_decoder(folder: Path, config: ModelConfig) -> bool:
    """Whether the model reads the prompt with an encoder (T5, BART), or continues it (causal)."""
    return bool(_model_config(folder, config, text_only=False).is_encoder_decoder)


def load_tokenizer(folder: Path, config: ModelConfig) -> PreTrainedTokenizerBase:
    """Tokenizer with right padding; where it has no pad token, padding is end-of-text.

    No token is ever added, so the embedding matrix keeps its size. Sharing a token is harmless:
    padding is masked by position, not by token id.

    Raises:
        ModelError: the tokenizer cannot be loaded, or has neither a pad nor an end-of-text token.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    except Exception as error:
        raise ModelError(_load_message("tokenizer", error, config)) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModelError(f"{config.model_name_or_path}: holds no tokenizer. {_HINT}")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"{config.model_name_or_path}: the tokenizer has neither a pad_token nor an "
                "eos_token. Name one in its tokenizer_config.json."
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_base(
    folder: Path, config: ModelConfig, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in evaluation mode (float32 unless told) on the GPU if there is one, and tokenizer.

    It is a causal or a sequence-to-sequence language model, as its config.json says.

    Raises:
        ModelError: a file is damaged, a weight is missing, or the model is of another kind.
        ConfigError: 4-bit weights are asked for, and this machine cannot hold them.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    tokenizer = load_tokenizer(folder, config)
    settings = _model_config(folder, config, text_only=False)
    kind = AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM
    dtype = dtype or torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    quantized = _quantization(config, dtype) if config.load_in_4bit else {}
    try:
        model, loading = kind.from_pretrained(
            str(folder),
            config=settings,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            local_files_only=True,
            dtype=dtype,
            output_loading_info=True,
            **quantized,
        )
    except Exception as error:
        raise ModelError(_load_message("weights", error, config)) from error
    missing = sorted(loading["missing_keys"])
    if missing or not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"{config.model_name_or_path}: {len(missing)} weights that its config.json calls for "
            f"are not in the safetensors files, first {', '.join(missing[:3])}. Fetch it again."
        )
    rows, tokens = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if tokens > rows:
        raise ModelError(
            f"{config.model_name_or_path}: the tokenizer knows {tokens:,} tokens, the model "
            f"{rows:,}. They do not belong together; fetch both from one place."
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    if not quantized:  # 4-bit weights were put on the GPU as they were read
        model = model.to(device)
    return model.eval(), tokenizer


def _check_quantization() -> None:
    """Fails before any work where 4-bit weights cannot be held."""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            "model.load_in_4bit: bitsandbytes needs an NVIDIA GPU, and none is to be seen here. "
            "Set it to false, or run on a machine with a GPU."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "model.load_in_4bit: bitsandbytes is not installed. Run "
            "`pip install 'tunetrail[quantization]'`, or set it to false."
        )


def _quantization(config: ModelConfig, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` takes to hold the weights in 4 bits on the first GPU.

    Source: Dettmers et al. (2023), QLoRA, section 3.
    """
    from transformers import BitsAndBytesConfig

    _check_quantization()
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=config.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=config.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=dtype,
        ),
        "device_map": {"": 0},
    }


def _check_folder(folder: Path, config: ModelConfig) -> None:
    """Everything that can be known without loading weights."""
    name = config.model_name_or_path
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{name}: is an adapter, not a base model. Give the base it was made for.")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name}: has no config.json, so it is not a model folder. {_HINT}")
    settings = _read_json(folder / "config.json", name)
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in _PICKLE_FILES for p in folder.glob(pattern))
        found = f"only {', '.join(pickles[:3])}, and unpickling runs code" if pickles else "none"
        raise ModelError(
            f"{name}: weights must be *.safetensors, found {found}. Use a revision that has "
            "them, or convert it where you trust it: load it there and call "
            "model.save_pretrained(folder)."
        )
    for index in folder.glob("*.safetensors.index.json"):
        shards = set(_read_json(index, name).get("weight_map", {}).values())
        absent = sorted(s for s in shards if not (folder / s).is_file())
        if absent:
            raise ModelError(
                f"{name}: {len(absent)} of {len(shards)} weight files are missing, first "
                f"{absent[0]}. Fetch it again."
            )
    if not any(p for pattern in _TOKENIZER_FILES for p in folder.glob(pattern)):
        raise ModelError(f"{name}: has no tokenizer (tokenizer.json or *.model). {_HINT}")
    if "auto_map" in settings and not config.trust_remote_code:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        if settings.get("model_type") not in CONFIG_MAPPING_NAMES:
            raise ModelError(_remote_code_message(config))


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{name}: {path.name} cannot be read as JSON. Fetch it again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{name}: {path.name} holds no JSON object. Fetch it again.")
    return value


def _model_config(folder: Path, config: ModelConfig, text_only: bool = True) -> Any:
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(
            str(folder), trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    except Exception as error:
        raise ModelError(_load_message("config.json", error, config)) from error
    return found.get_text_config() if text_only else found


def _load_message(part: str, error: Exception, config: ModelConfig) -> str:
    if "trust_remote_code" in str(error):
        return _remote_code_message(config)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return f"{config.model_name_or_path}: its {part} cannot be loaded: {reason}"


def _remote_code_message(config: ModelConfig) -> str:
    return (
        f"{config.model_name_or_path}: needs code that comes with the model, which is off. Read "
        "that code; if you trust it, set model.trust_remote_code: true."
    )
