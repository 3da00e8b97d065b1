"""LoRA fine-tuning against TRL's defaults, plain Trainers and a lean loop: real tokens a second.

    python -m benchmarks.training [--quick] [--json FILE] [--shapes 15M,135M] [--dtype bfloat16]

All contestants fit the same LoRA (rank 16 on all linear layers) to the same random Llama of a given
shape with a 32k vocabulary, on real questions and answers (MedQuAD, in ../shared/data), cut at
1,024 tokens, with loss on the answer. `trl sft` has its defaults, its own preparation included; the
plain Trainers have theirs, but for grouping by length; the lean loop is what one writes by hand:
sorted batches by token budget, logits at labels only, and no trainer around it. Where the processor
has no bfloat16 all train in float32, TRL too, whose default would be emulated.

Each run is a fresh process, trains for some seconds after it is warm, to the end of a step, and the
runs alternate; figures are medians. On a busy machine the ratios by processor time say more than
those by the clock. Tokens count if they are real, not padding. `mfu` is the share
of the machine's measured matrix-product peak, in the same type and on as many threads, of the
products with weights that a real token needs: two forward and two back for a frozen weight, three
times two for an adapter's, the head at labels only. Attention scores are left out. `peak_mib` is of
the whole process, imports included, and on a GPU of what torch allocated there.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a busy neighbour costs less
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.harness import arguments, measure, publish

OURS = "tunetrail"
MEDQUAD = Path(__file__).parents[2] / "shared" / "data" / "medquad.jsonl.gz"
CACHE = Path(tempfile.gettempdir()) / "tunetrail-benchmark"
VOCABULARY = 32_000
MAX_LENGTH = 1_024
PAD, END = "<pad>", "<end>"
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
LEARNING_RATE = 2e-4
_LLAMA = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SHAPES = {
    "15M": (288, 768, 6, 6, 6),
    "135M": (576, 1_536, 30, 9, 3),
    "1B": (2_048, 8_192, 16, 32, 8),
}


@dataclass(frozen=True)
class Setting:
    """What a contestant gets."""

    shape: str
    dtype: str
    num_rows: int
    seconds: float
    threads: int
    seed: int

    @property
    def base(self) -> Path:
        """Folder of the base model and its tokenizer."""
        return CACHE / self.shape

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU, which then is where all train."""
        import torch

        return torch.cuda.is_available()


def main() -> None:
    """Every shape, in one table."""
    import torch

    fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    args = arguments(
        __doc__ or "",
        shapes={"help": "15M, 135M, 1B, with commas between"},
        dtype={"choices": ["float32", "bfloat16"], "default": "bfloat16" if fast else "float32"},
        threads={"type": int, "default": 1, "help": "on a CPU"},
        seconds={"type": float, "help": "to train for, each time"},
        rounds={"type": int},
    )
    shapes = (args.shapes or ("15M" if args.quick else "15M,135M")).split(",")
    num_rounds = args.rounds or (1 if args.quick else 3)
    results, ratios = [], {}
    for shape in shapes:
        prepare(shape)
        rounds = []
        for seed in range(num_rounds):
            setting = Setting(
                shape,
                args.dtype,
                num_rows=400 if args.quick else 4_000,
                seconds=args.seconds or (4.0 if args.quick else 60.0),
                threads=args.threads,
                seed=seed,
            )
            peak = measure(matrix_product, setting)["flops"]
            rounds.append({n: measure(contest, n, setting) | {"peak": peak} for n in CONTESTANTS})
        results += [_medians(name, shape, [r[name] for r in rounds]) for name in CONTESTANTS]
        ratios |= {
            f"{shape}, {name}, {key}": statistics.median(
                r[OURS][key] / r[name][key] for r in rounds
            )
            for name in CONTESTANTS
            for key in ("tokens_per_second", "tokens_per_cpu_second")
            if name != OURS and not (key == "tokens_per_cpu_second" and torch.cuda.is_available())
        }
    publish(args, results, ratios)


def _medians(name: str, shape: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    keys = ("tokens_per_second", "tokens_per_cpu_second", "padding_rate", "peak_mib", "steps")
    medians = {key: statistics.median(run[key] for run in runs) for key in keys}
    mfu = statistics.median(run["flops_per_second"] / run["peak"] for run in runs)
    return {"contestant": name, "shape": shape, **medians, "mfu": mfu, "dtype": runs[0]["dtype"]}


def prepare(shape: str) -> None:
    """A random base of the shape, and a tokenizer made from the text, kept between runs."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = CACHE / shape
    if (folder / "model.safetensors").exists():
        return
    trained = CACHE / "tokenizer.json"
    if not trained.exists():
        CACHE.mkdir(exist_ok=True)
        bpe = ByteLevelBPETokenizer()
        texts = (text for pair in islice(_pairs(), 6_000) for text in pair)
        bpe.train_from_iterator(texts, VOCABULARY, special_tokens=[PAD, END], show_progress=False)
        bpe.save(str(trained))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(trained), pad_token=PAD, eos_token=END)
    values = dict(zip((*_LLAMA, "num_key_value_heads"), SHAPES[shape], strict=True))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            **values,
            vocab_size=VOCABULARY,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _pairs() -> Iterator[tuple[str, str]]:
    with gzip.open(MEDQUAD, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["answer"]:
                yield row["question"] + "\n", " ".join(row["answer"].split())


def _sample(setting: Setting) -> list[tuple[str, str]]:
    return random.Random(setting.seed).sample(list(_pairs()), setting.num_rows)


def _tokenised(setting: Setting) -> tuple[Any, list[dict[str, list[int]]]]:
    """Tokenizer, and rows as a trainer takes them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(setting.base)
    pairs = _sample(setting)
    prompts, answers = (tokenizer([p[i] for p in pairs])["input_ids"] for i in (0, 1))
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = [*prompt, *answer, tokenizer.eos_token_id]
        labels = [-100] * len(prompt) + ids[len(prompt) :]
        rows.append({"input_ids": ids[:MAX_LENGTH], "labels": labels[:MAX_LENGTH]})
    return tokenizer, rows


class Enough(Exception):  # noqa: N818
    """The time is over: raised at the end of a step, through whatever trains."""


@dataclass
class Meter:
    """Hands out the rows, and counts what goes into the model from the end of the warm-up on."""

    setting: Setting
    tokenizer: Any
    rows: list[dict[str, list[int]]]
    steps: int = 0
    started: tuple[float, float] | None = None
    stopped: tuple[float, float] = (0.0, 0.0)
    batches: list[Any] = field(default_factory=list)

    def watch(self) -> None:
        """Every batch goes through an embedding, and nothing else in this process does.

        The clock starts at the first batch; a few tokens are a trainer's look at the model.
        """
        from torch.nn import Embedding

        inner = Embedding.forward

        def forward(embedding: Any, ids: Any) -> Any:
            if ids.numel() > 8:
                self.started = self.started or self._now()
                self.batches.append(ids)
            return inner(embedding, ids)

        Embedding.forward = forward  # type: ignore[method-assign]

    def _now(self) -> tuple[float, float]:
        """Seconds on the wall and of the processor."""
        if self.setting.on_gpu:
            import torch

            torch.cuda.synchronize()
        return time.monotonic(), time.process_time()

    def end_step(self) -> None:
        """Ends the warm-up, which on a GPU are some steps, or the run."""
        self.steps += 1
        warm_up = 5 if self.setting.on_gpu else 0
        if self.steps <= warm_up:
            self.batches.clear()
            self.started = None
            return
        self.stopped = self._now()
        if self.stopped[0] - self._start()[0] >= self.setting.seconds:
            raise Enough

    def _start(self) -> tuple[float, float]:
        if self.started is None:
            raise RuntimeError("no batch was seen")
        return self.started

    def figures(self) -> dict[str, Any]:
        """What was measured."""
        seconds, cpu_seconds = (b - a for a, b in zip(self._start(), self.stopped, strict=True))
        pad_id = self.tokenizer.pad_token_id
        padded = sum(ids.numel() for ids in self.batches)
        real = sum(int((ids != pad_id).sum()) for ids in self.batches)
        return {
            "tokens_per_second": real / seconds,
            "tokens_per_cpu_second": real / cpu_seconds,
            "padding_rate": 1 - real / padded,
            "steps": self.steps,
        }


def contest(name: str, setting: Setting) -> dict[str, Any]:
    """One contestant trains until the time is over."""
    import torch
    from transformers import AutoModelForCausalLM

    if not setting.on_gpu:
        torch.set_num_threads(setting.threads)
    tokenizer, rows = _tokenised(setting)
    model = AutoModelForCausalLM.from_pretrained(setting.base)
    # A first pass, so that no contestant is timed while kernels are set up.
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    lengths = sum(len(row["input_ids"]) for row in rows)
    label_rate = sum(label != -100 for row in rows for label in row["labels"]) / lengths
    flops = _flops_per_token(model, label_rate)
    del model
    meter = Meter(setting, tokenizer, rows)
    meter.watch()
    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        CONTESTANTS[name](setting, meter, Path(folder))
    found = meter.figures() | {"dtype": setting.dtype}
    if setting.on_gpu:
        found["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found | {"flops_per_second": flops * found["tokens_per_second"]}


def _flops_per_token(model: Any, label_rate: float) -> float:
    from torch.nn import Linear

    layers = [m for n, m in model.named_modules() if isinstance(m, Linear) and n != "lm_head"]
    frozen = sum(layer.weight.numel() for layer in layers)
    adapter = sum(LORA["r"] * (m.in_features + m.out_features) for m in layers)  # type: ignore[operator]
    return 4.0 * frozen + 6.0 * adapter + 4.0 * label_rate * model.lm_head.weight.numel()


def matrix_product(setting: Setting) -> dict[str, float]:
    """Best of some products of square matrices."""
    import torch

    device = "cuda" if setting.on_gpu else "cpu"
    torch.set_num_threads(setting.threads)
    size = 8_192 if setting.on_gpu else 2_048
    a = torch.randn(size, size, device=device, dtype=getattr(torch, setting.dtype))
    best = float("inf")
    for _ in range(8):
        started = time.monotonic()
        (a @ a)[0, 0].item()
        best = min(best, time.monotonic() - started)
    return {"flops": 2 * size**3 / best}


def _tunetrail(setting: Setting, meter: Meter, folder: Path) -> None:
    from sft_core.config import LoraSection, ModelConfig, TrainingConfig
    from sft_core.layout import Example
    from sft_core.token_file import save_tokens
    from sft_core.training.trainer import train_adapter

    path = folder / "train.parquet"
    save_tokens(((i, Example(**row, num_cut=0)) for i, row in enumerate(meter.rows)), path)

    def on_progress(numbers: dict[str, float]) -> None:
        if "loss" in numbers:
            meter.end_step()

    train_adapter(
        setting.base,
        path,
        None,
        TrainingConfig(
            learning_rate=LEARNING_RATE,
            logging_steps=1,
            save_steps=None,
            bf16=setting.dtype == "bfloat16",
            lora=LoraSection(**LORA),
        ),
        ModelConfig(model_name_or_path=str(setting.base)),
        chat_template="",
        seed=setting.seed,
        output=folder / "work",
        on_progress=on_progress,
    )


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", **LORA)


def _callback(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            meter.end_step()

    return Watch()


def _trl(setting: Setting, meter: Meter, folder: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    pairs = [{"prompt": prompt, "completion": answer} for prompt, answer in _sample(setting)]
    SFTTrainer(
        str(setting.base),
        args=SFTConfig(
            str(folder),
            # Off the GPU the default type is refused, or emulated and a hundred times slower.
            bf16=setting.dtype == "bfloat16",
            use_cpu=not setting.on_gpu,
            seed=setting.seed,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=meter.tokenizer,
        peft_config=_lora(),
        callbacks=[_callback(meter)],
    ).train()


def _plain(sampling: str) -> Callable[..., None]:
    def train(setting: Setting, meter: Meter, folder: Path) -> None:
        import torch
        from datasets import Dataset
        from peft import get_peft_model
        from transformers import (
            AutoModelForCausalLM,
            DataCollatorForSeq2Seq,
            Trainer,
            TrainingArguments,
        )

        model = AutoModelForCausalLM.from_pretrained(
            setting.base, dtype=getattr(torch, setting.dtype)
        )
        Trainer(
            get_peft_model(model, _lora()),
            TrainingArguments(
                str(folder),
                bf16=setting.dtype == "bfloat16",
                train_sampling_strategy=sampling,
                use_cpu=not setting.on_gpu,
                seed=setting.seed,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(meter.rows),
            processing_class=meter.tokenizer,
            data_collator=DataCollatorForSeq2Seq(meter.tokenizer),
            callbacks=[_callback(meter)],
        ).train()

    return train


def _lean(setting: Setting, meter: Meter, _folder: Path) -> None:
    import torch
    from peft import get_peft_model
    from torch.nn.functional import cross_entropy
    from torch.nn.utils.rnn import pad_sequence
    from transformers import AutoModelForCausalLM

    device = "cuda" if setting.on_gpu else "cpu"
    base = AutoModelForCausalLM.from_pretrained(setting.base, dtype=getattr(torch, setting.dtype))
    model = get_peft_model(base.to(device), _lora()).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, fused=True)
    batches: list[list[dict[str, list[int]]]] = [[]]
    for row in sorted(meter.rows, key=lambda row: len(row["input_ids"])):
        if (len(batches[-1]) + 1) * len(row["input_ids"]) > LEAN_TOKENS:
            batches.append([])
        batches[-1].append(row)
    random.Random(setting.seed).shuffle(batches)
    for batch in batches:
        ids, labels = (
            pad_sequence([torch.tensor(row[key]) for row in batch], True, value).to(device)
            for key, value in (("input_ids", meter.tokenizer.pad_token_id), ("labels", -100))
        )
        chosen = labels[:, 1:] != -100
        states = base.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][chosen]
        cross_entropy(base.lm_head(states).float(), labels[:, 1:][chosen]).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter.end_step()


LEAN_TOKENS = 2_048
"""Padded tokens of a batch; more is slower on a CPU, where the logits leave the cache."""
CONTESTANTS: dict[str, Callable[..., None]] = {
    OURS: _tunetrail,
    "trl sft": _trl,
    "plain Trainer": _plain("random"),
    "plain Trainer, length-grouped": _plain("group_by_length"),
    "lean loop": _lean,
}


if __name__ == "__main__":
    main()
