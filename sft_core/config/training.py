"""Sections of the training half: the base model, its tokens, and how it is tuned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sft_core.config.section import InputFile, PositiveInt, Section


class ModelConfig(Section):
    """The base model."""

    model_name_or_path: str = "examples/triage/base"
    """Folder or hub id. Weights must be safetensors."""
    revision: str = "main"
    """Commit, tag or branch of a hub id."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Leave it off unless you have read that code."""
    load_in_4bit: bool = False
    """Hold the base in 4 bits (QLoRA), in training and in evaluation. Needs an NVIDIA GPU and the
    extra `quantization`."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Data type of a 4-bit weight."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the scales of the weights as well."""


class TokenizationConfig(Section):
    """Stage 8: the model's own chat template, loss on the completion only."""

    max_length: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Longest example in tokens, cut at the end; empty means the model's context."""
    chat_template: InputFile | None = None
    """Jinja file used instead of the model's own template."""


InitLoraWeights = Annotated[str, Field(pattern=r"^(gaussian|pissa|pissa_niter_[1-9]\d?)$")]


class LoraSection(Section):
    """PEFT's LoraConfig, by its own names."""

    r: Annotated[int, Field(ge=1, le=1_024)] = 16
    """Rank."""
    lora_alpha: Annotated[int, Field(ge=1, le=4_096)] = 32
    """Scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the adapter's input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Modules that get an adapter."""
    use_rslora: bool = False
    """Multiply the update by lora_alpha / sqrt(r) instead, which suits high ranks (rsLoRA)."""
    use_dora: bool = False
    """Learn the magnitude of each weight column apart from its direction (DoRA)."""
    init_lora_weights: Literal[True] | InitLoraWeights = True
    """First weights: true (the update starts at zero), `gaussian`, or `pissa`, the largest singular
    vectors of each weight; `pissa_niter_16` finds these by a fast approximation."""

    @model_validator(mode="after")
    def _combinations(self) -> LoraSection:
        if self.starts_from_base and self.use_dora:
            raise ValueError(
                f"use_dora with init_lora_weights: {self.init_lora_weights}: the adapter could not "
                "be saved for the original base; choose one of the two"
            )
        return self

    @property
    def starts_from_base(self) -> bool:
        """Whether the first update is a part of the base (PiSSA), which is taken out of it."""
        return str(self.init_lora_weights).startswith("pissa")


class Ia3Section(Section):
    """PEFT's IA3Config, by its own names."""

    target_modules: str | tuple[str, ...] = "all-linear"
    """Modules whose outputs are scaled."""
    feedforward_modules: tuple[str, ...] = ()
    """Those of the modules whose inputs are scaled instead."""

    @model_validator(mode="after")
    def _feedforward_are_targets(self) -> Ia3Section:
        if not isinstance(self.target_modules, str):
            extra = sorted(set(self.feedforward_modules) - set(self.target_modules))
            if extra:
                raise ValueError(f"feedforward_modules: {extra} are not among target_modules")
        return self


class PromptTuningSection(Section):
    """PEFT's PromptTuningConfig, by its own names."""

    num_virtual_tokens: Annotated[int, Field(ge=1, le=4_096)] = 16
    """Trained vectors before each prompt; they take room in the model's context."""
    prompt_tuning_init: Literal["SAMPLE_VOCAB", "RANDOM"] = "SAMPLE_VOCAB"
    """First values: embeddings of tokens drawn from the vocabulary, or random numbers."""


class PrefixTuningSection(Section):
    """PEFT's PrefixTuningConfig, by its own names."""

    num_virtual_tokens: Annotated[int, Field(ge=1, le=4_096)] = 16
    """Trained keys and values before each prompt, in every layer; they take room in the context."""
    prefix_projection: bool = False
    """Train the prefix through a small network, which is left out of what is saved."""
    encoder_hidden_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Width of that network; empty means that of the model."""


class AttributionConfig(Section):
    """After stage 9: what `tunetrail explain` answers from."""

    enabled: bool = False
    """Take the gradients of every training row at each of `training.num_snapshots`, which takes up
    to as long as so many epochs. Switched on later, only this is done: the training is cached."""
    projection_dim: Annotated[int, Field(ge=16, le=1_048_576)] = 4_096
    """Numbers that are kept of each row's gradient: more are more exact, and four bytes each."""


class TrainingConfig(Section):
    """Stage 9: `trl.SFTTrainer` with a PEFT adapter, or with all weights. Names are those of
    TrainingArguments and PEFT."""

    num_train_epochs: Annotated[float, Field(gt=0.0, le=1_000.0)] = 1.0
    """Passes over the training rows."""
    max_steps: Annotated[int, Field(ge=-1)] = -1
    """Stop after so many steps; -1 means that epochs decide."""
    per_device_train_batch_size: PositiveInt = 16
    """Most rows a step and device; rows of like length go together."""
    max_tokens_per_batch: Annotated[int, Field(ge=1, le=16_777_216)] | None = 8_192
    """Most tokens a step and device, padding counted: long rows make smaller batches, and a row
    that is longer goes alone. Empty means that rows alone decide, as they do for an encoder with a
    decoder."""
    packing: bool = False
    """Put the rows of a batch end to end in one sequence instead of padding them. Rows do not see
    each other, which is tried on the model first. Without flash attention it is the slower way."""
    gradient_accumulation_steps: PositiveInt = 1
    """Steps whose gradients are added before an update."""
    num_processes: Annotated[int, Field(ge=1, le=1_024)] = 1
    """Processes of this machine that share each update, a GPU each where there are GPUs: the same
    as one process with so many times the `gradient_accumulation_steps`."""
    fsdp: bool = False
    """Share the weights out among the processes as well, for a base that one GPU cannot hold."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 5e-3
    """Peak learning rate; 5e-3 suits the tiny demo base, 2e-4 is usual for LoRA on larger ones."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate over time."""
    warmup_steps: Annotated[float, Field(ge=0.0)] = 0.03
    """Warm-up in steps, or as a share of all steps when below 1."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradient clipping."""
    logging_steps: PositiveInt = 10
    """Steps between two points of the loss curve."""
    bf16: bool | Literal["auto"] = "auto"
    """Train in bfloat16. `auto` does so on a GPU that has it; on a CPU it keeps float32, which
    repeats bit for bit."""
    gradient_checkpointing: bool = False
    """Trade time for memory."""
    save_steps: PositiveInt | None = 50
    """Steps between two checkpoints, from which an interrupted run goes on; empty saves none."""
    save_total_limit: PositiveInt = 2
    """Most checkpoints that are kept, besides the best one."""
    num_snapshots: Annotated[int, Field(ge=0, le=64)] = 5
    """Points of the training, evenly spread, at which a LoRA adapter and Adam's second moment are
    kept for `attribution`; 0 keeps none."""
    load_best_model_at_end: bool = False
    """Take the weights with the lowest held-out loss instead of the last ones."""
    early_stopping_patience: PositiveInt | None = None
    """Stop after so many held-out losses in a row that are no better than the best; empty means
    never."""
    peft_type: Literal["LORA", "IA3", "PROMPT_TUNING", "PREFIX_TUNING", "NONE"] = "LORA"
    """What is trained: an adapter of that kind, or with NONE every weight of the model."""
    lora: LoraSection = LoraSection()
    """The adapter with `peft_type: LORA`."""
    ia3: Ia3Section = Ia3Section()
    """The adapter with `peft_type: IA3`."""
    prompt_tuning: PromptTuningSection = PromptTuningSection()
    """The adapter with `peft_type: PROMPT_TUNING`."""
    prefix_tuning: PrefixTuningSection = PrefixTuningSection()
    """The adapter with `peft_type: PREFIX_TUNING`."""

    @model_validator(mode="after")
    def _only_the_chosen_method_is_set(self) -> TrainingConfig:
        for name in ("lora", "ia3", "prompt_tuning", "prefix_tuning"):
            section = getattr(self, name)
            changed = section.model_dump(exclude_defaults=True)
            if changed and name.upper() != self.peft_type:
                raise ValueError(
                    f"{name}.{', '.join(changed)} is set, but peft_type is {self.peft_type}: "
                    f"remove it or set peft_type: {name.upper()}"
                )
        if self.fsdp and self.num_processes == 1:
            raise ValueError(
                "fsdp with num_processes: 1: there is nobody to share weights with; raise "
                "num_processes or set fsdp to false"
            )
        if self.packing and self.num_virtual_tokens:
            raise ValueError(
                f"packing with peft_type: {self.peft_type}: virtual tokens stand before a "
                "sequence, not before each row in it; set it to false"
            )
        if self.peft_type == "PREFIX_TUNING" and self.gradient_checkpointing:
            raise ValueError(
                "gradient_checkpointing with peft_type: PREFIX_TUNING: a prefix is a key-value "
                "cache, and checkpointing runs without one; set it to false"
            )
        return self

    @property
    def num_virtual_tokens(self) -> int:
        """Positions of the context that the adapter takes for itself."""
        if self.peft_type == "PROMPT_TUNING":
            return self.prompt_tuning.num_virtual_tokens
        return self.prefix_tuning.num_virtual_tokens if self.peft_type == "PREFIX_TUNING" else 0
