"""One schema for a run: a section a stage, a bound on every number, help on every field.

The defaults are the demo run. Fields that PEFT, TRL or transformers know keep upstream's names.
Limits live in one section, `policy`, which is hashed and sealed before training starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from sft_core.records import sha256_json

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]


class _InputFile:
    """Marks a field whose value names a file, a folder or a hub id that the stage reads."""


InputFile = Annotated[str, _InputFile()]


def _marks(field: FieldInfo) -> list[Any]:
    """Metadata of a field, also where it stands inside `| None`."""
    inner = [m for part in getattr(field.annotation, "__args__", ()) for m in _metadata(part)]
    return [*field.metadata, *inner]


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__metadata__", ())


class Section(BaseModel):
    """A group of knobs; an unknown key is an error and values do not change."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    def input_files(self) -> Iterator[tuple[str, str | None]]:
        """What the section reads, by name, and the revision where it may be a hub id."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Section):
                yield from value.input_files()
            elif isinstance(value, tuple):
                for item in value:
                    if isinstance(item, Section):
                        yield from item.input_files()
            elif value is not None and any(isinstance(m, _InputFile) for m in _marks(field)):
                yield value, getattr(self, "revision", None)


class Columns(Section):
    """Which columns hold what. Leave all empty to have the shape recognised: `messages`,
    `prompt`/`completion`, `instruction`/`input`/`output`, `question`/`answer`, or `text`."""

    messages: str | None = None
    """Column with a list of `{"role", "content"}`."""
    prompt: str | None = None
    """Column with the user's text."""
    completion: str | None = None
    """Column with the answer to learn."""
    system: str | None = None
    """Column with a system prompt."""
    text: str | None = None
    """Column with plain text, for continued pretraining: no turns, loss on every token. The sources
    of a run are all chats or all plain text."""
    licence: str | None = None
    """Column with the licence of each row; without it the source's licence holds."""
    consent: str | None = None
    """Column with the consent state of each row; without it the source's consent holds."""
    subject: str | None = None
    """Column that names the person a row is about, so that all their rows can be erased. The ledger
    holds a keyed pseudonym of it."""

    @model_validator(mode="after")
    def _text_stands_alone(self) -> Columns:
        turns = [n for n in ("messages", "prompt", "completion", "system") if getattr(self, n)]
        if self.text and turns:
            raise ValueError(
                f"text with {', '.join(turns)}: a row is plain text or a conversation; name the "
                "columns of one of the two"
            )
        return self


class SourceConfig(Section):
    """A file or data set to read, with the terms under which it may be used."""

    path: InputFile
    """JSONL, CSV or Parquet file (also `.gz`), a folder saved by `datasets`, or a hub id."""
    format: Literal["auto", "jsonl", "csv", "parquet", "datasets"] = "auto"
    """How to read it; `auto` goes by the name."""
    split: str = "train"
    """Split to read, for `datasets` folders and hub ids."""
    revision: str = "main"
    """Commit of a hub data set. Pin one: a branch can change, so it is read again in each run."""
    columns: Columns = Columns()
    """Column mapping; empty means that the shape is recognised."""
    subgroups: tuple[str, ...] = ()
    """Columns that ride along with each row, by which results are reported (sex, site)."""
    licence: str = "unknown"
    """Licence of the source, as an SPDX identifier where there is one."""
    consent: str = "unknown"
    """Ground for using the rows: given, not needed (synthetic, public), or unknown."""
    max_rows: PositiveInt | None = None
    """Read only the first rows."""


class IngestConfig(Section):
    """Stage 1: read sources into canonical records."""

    sources: tuple[SourceConfig, ...] = (
        SourceConfig(
            path="examples/triage/data/referrals.jsonl",
            subgroups=("sex",),
            licence="CC0-1.0",
            consent="not needed",
        ),
    )
    """Where the rows come from, in order."""
    max_line_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = 10_000_000
    """Longest line that is read, in bytes; a longer one stops the run."""

    @model_validator(mode="after")
    def _some_source(self) -> IngestConfig:
        if not self.sources:
            raise ValueError("at least one source is needed")
        return self


class TermsConfig(Section):
    """On what terms rows may be used. A row on other terms is left out, and by default fails the
    run."""

    allowed_licences: tuple[str, ...] | None = None
    """Licences that a row may have; empty means any, `unknown` included."""
    allowed_consent: tuple[str, ...] = ("given", "not needed")
    """States of consent that a row may have; `unknown` is what a source has that states none."""
    erasure_list: InputFile | None = None
    """Text file, an entry a line: a row id, or a value of the subject column. Rows that match are
    left out."""


class ValidationConfig(Section):
    """Stage 2: rows that cannot be trained on go to quarantine."""

    max_turns: PositiveInt = 64
    """Most messages in a record."""
    min_completion_chars: PositiveInt = 1
    """Shortest answer, in characters."""
    max_chars: PositiveInt = 100_000
    """Longest record, in characters over all messages."""
    suite: InputFile | None = None
    """JSON file with a Great Expectations suite of your own, judged besides the bundled one."""


SecretAction = Literal["keep", "redact", "drop", "fail"]
IdentifierAction = Literal["keep", "redact", "pseudonymize", "drop", "fail"]
CoarseAction = Literal["keep", "redact", "pseudonymize", "generalize", "drop", "fail"]
DateAction = Literal["keep", "redact", "pseudonymize", "generalize", "shift", "drop", "fail"]


class PrivacyConfig(Section):
    """Stage 3: what happens to each kind of identifier. `redact` puts a numbered placeholder,
    `pseudonymize` one that a secret key makes the same in every row, `generalize` a coarser value,
    `shift` moves the dates of a row by the same days, `drop` takes the row out, `fail` stops the
    run, `keep` only counts."""

    email: IdentifierAction = "redact"
    """E-mail addresses."""
    phone: IdentifierAction = "redact"
    """Telephone and fax numbers."""
    ssn: IdentifierAction = "redact"
    """US social security numbers."""
    national_id: IdentifierAction = "redact"
    """National identity, tax and health numbers of other countries; most have check digits."""
    card: IdentifierAction = "redact"
    """Payment card numbers (issuer prefix and Luhn digit)."""
    iban: IdentifierAction = "redact"
    """Bank accounts (IBAN with its check digits)."""
    account: IdentifierAction = "redact"
    """Account and routing numbers, found by the words before them."""
    ip: CoarseAction = "redact"
    """IPv4 and IPv6 addresses; generalised to the network, the first three groups."""
    url: IdentifierAction = "keep"
    """Web addresses and domain names."""
    date: DateAction = "keep"
    """Dates finer than a year; generalised to the year."""
    age: CoarseAction = "redact"
    """Ages over 89; generalised to 90 or older."""
    record_number: IdentifierAction = "redact"
    """Medical record, case, specimen, customer numbers and the like, by the words before them."""
    health_plan: IdentifierAction = "redact"
    """Health plan, policy and member numbers."""
    licence: IdentifierAction = "redact"
    """Licences and certificates: drivers, professionals, NPI and DEA with their check digits."""
    vehicle: IdentifierAction = "redact"
    """Vehicle identification numbers (VIN with its check digit) and number plates."""
    device: IdentifierAction = "redact"
    """Device identifiers and serial numbers (UDI, IMEI)."""
    street: IdentifierAction = "redact"
    """Street addresses."""
    postal_code: CoarseAction = "redact"
    """Postal codes, found by the words or the address around them; generalised to three signs."""
    name: IdentifierAction = "redact"
    """Names of people after a cue (Mr, Dr, patient:, signed), and those that `ner` finds."""
    secret: SecretAction = "fail"
    """Cloud keys, tokens, private keys, passwords in assignments."""
    ner: InputFile | None = None
    """Recogniser to ask as well: `presidio`, `presidio:SPACY_MODEL`, or `module:function` of yours,
    which maps a list of texts to lists of (kind, start, end)."""

    @property
    def needs_key(self) -> bool:
        """Whether some action draws on the secret key of pseudonyms and date shifts."""
        return not {"pseudonymize", "shift"}.isdisjoint(vars(self).values())


class DedupConfig(Section):
    """Stage 4: exact duplicates after normalisation, then verified near-duplicates."""

    near_duplicates: Literal["drop", "keep"] = "drop"
    """`keep` leaves near-duplicates in but holds each cluster in one split."""
    min_similarity: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8
    """Jaccard similarity of word 5-grams from which two rows are near-duplicates."""
    kept_row: Literal["earliest", "longest"] = "earliest"
    """Which row of a cluster stays: the earliest, or the one with the most words (of equally long
    ones the earliest). Of exact duplicates, which are equally long, the earliest stays."""


class SplitConfig(Section):
    """Stage 5: train, validation and test by a hash of the near-duplicate cluster."""

    validation_rate: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    """Share of clusters that go to validation."""
    test_rate: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    """Share of clusters that go to the held-out test."""
    salt: str = "tunetrail"
    """Changes which rows are held out; keep it while results are compared."""


class BenchmarkFile(Section):
    """A benchmark whose items must not be in the training rows."""

    path: InputFile
    """JSONL, CSV or Parquet file (also `.gz`)."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """Columns whose text makes up an item. Name the question alone to find it with any answer."""


class ContaminationConfig(Section):
    """Stage 6: training rows that overlap held-out items are taken out."""

    benchmarks: tuple[BenchmarkFile, ...] = ()
    """Benchmark files to check against, besides the held-out split."""
    min_overlap: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of an item's word 13-grams in one training row from which the row leaks the item:
    verbatim copies. It adds to `min_similarity` where it is the lower one."""
    min_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of an item's distinctive word 3-grams in one training row from which the row leaks the
    item: copies with words or numbers changed."""


def _sum_to_one(shares: dict[str, float]) -> dict[str, float]:
    if len(shares) < 2 or abs(sum(shares.values()) - 1.0) > 1e-6:
        raise ValueError("two or more shares that sum to 1 are needed")
    return shares


Shares = Annotated[dict[str, Annotated[float, Field(gt=0.0, lt=1.0)]], AfterValidator(_sum_to_one)]


class BiasConfig(Section):
    """Stage 7: who is in the training text, and what goes together with whom."""

    lexicon: InputFile | None = None
    """JSON file with identity terms by dimension and group; empty means the bundled one."""
    clinical_terms: InputFile | None = None
    """JSON file with words whose association with a group is expected in medicine; they are shown
    apart. Empty means the bundled one."""
    occupations: InputFile | None = None
    """JSON file with occupations; they are tested apart from all other words, and so with more
    power. Empty means the bundled one."""
    refusals: InputFile | None = None
    """JSON file with the first words of answers that decline; empty means the bundled one."""
    references: dict[str, Shares | Literal["equal"]] = {}
    """Shares that the groups of a dimension should have among its mentions, such as
    `{sex: {female: 0.5, male: 0.5}}`; `equal` means the same share for every group of the lexicon.
    A dimension without an entry is held against the lexicon's own reference, if it states one."""
    min_mentions: PositiveInt = 20
    """Rows a group needs before it is compared."""
    num_permutations: Annotated[int, Field(ge=100, le=100_000)] = 1_000
    """Permutations of each test."""


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
    that is longer goes alone. Empty means that rows alone decide."""
    gradient_accumulation_steps: PositiveInt = 1
    """Steps whose gradients are added before an update."""
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


class EvaluationConfig(Section):
    """Stage 10: base against tuned on the same held-out rows."""

    max_items: PositiveInt = 300
    """Most held-out rows that are generated for; they are taken in order of their row id."""
    max_new_tokens: Annotated[int, Field(ge=1, le=32_768)] = 64
    """Longest answer, in tokens."""
    batch_size: PositiveInt = 32
    """Prompts generated for at once."""
    num_resamples: Annotated[int, Field(ge=100, le=100_000)] = 1_000
    """Bootstrap resamples behind each 95 % interval."""
    retention_texts: InputFile | None = None
    """Text file, a passage a line, on which the model must not get worse; empty means the bundled
    general English."""


class CardConfig(Section):
    """Stage 11: what only people know. An empty field reads "not stated" on the card."""

    language: str = "en"
    """Language of the data, as an ISO 639 code."""
    licence: str = "other"
    """Licence of the adapter, by the hub's identifiers."""
    owner: str = ""
    """Team that answers for the model."""
    contact: str = ""
    """Where to report a problem."""
    intended_use: str = ""
    """What the model is for."""
    out_of_scope: str = ""
    """What it must not be used for."""
    data_purpose: str = ""
    """For what the data was made, by whom, and who paid for it."""
    data_collection: str = ""
    """How the rows came about: from whom, by which procedure, in which time."""
    data_annotation: str = ""
    """Who wrote or labelled the answers, and how that was checked."""
    data_limits: str = ""
    """What the data is known to lack or to get wrong."""
    data_impact: str = ""
    """What its use could do to the people whom it speaks of, and what was done about that."""
    data_maintenance: str = ""
    """Who keeps the data, how errors are reported, when it is renewed or deleted."""
    data_url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """Where the data is described or to be had."""
    data_published: Annotated[str, Field(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""
    """Day on which the data was published, as YYYY-MM-DD."""


class PolicyConfig(Section):
    """Every limit of the run. An empty limit means that the number is shown but not judged. The
    whole section is hashed and sealed before training starts."""

    max_unlicensed_rows: Annotated[int, Field(ge=0)] | None = 0
    """Rows that may have a licence which is not allowed; they are left out in any case."""
    max_unconsented_rows: Annotated[int, Field(ge=0)] | None = 0
    """Rows that may lack an allowed state of consent; they are left out in any case."""
    min_rows: Annotated[int, Field(ge=1)] | None = 50
    """Fewest rows that validation leaves."""
    max_failed_expectations: Annotated[int, Field(ge=0)] | None = 0
    """Expectations about the whole data set, of your own suite, that may fail."""
    max_rejected_rate: Rate | None = 0.05
    """Share of rows that validation may reject."""
    max_forbidden_rows: Annotated[int, Field(ge=0)] | None = 0
    """Rows that may hold an identifier whose action is `fail`."""
    max_identifier_drop_rate: Rate | None = 0.05
    """Share of rows that privacy may take out."""
    max_duplicate_rate: Rate | None = 0.3
    """Share of rows that may be duplicates."""
    min_test_rows: Annotated[int, Field(ge=1)] | None = 30
    """Fewest held-out rows."""
    max_contamination_rate: Rate | None = 0.05
    """Share of training rows that may leak held-out items."""
    max_label_disparity: Rate | None = 0.1
    """Largest significant difference in the rate of any label between two groups."""
    max_truncated_rate: Rate | None = 0.05
    """Share of examples that may be cut."""
    max_reload_difference: Annotated[float, Field(ge=0.0, le=100.0)] | None = 1e-3
    """Most that the loss of the tuned model, loaded in a new process, may differ from the one that
    training ended with, in nats a token."""
    min_loss_gain: Annotated[float, Field(ge=-100.0, le=100.0)] | None = 0.0
    """Least gain of held-out loss over the base: lower end of the 95 % interval, nats a token."""
    min_exact_match_gain: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    """Least gain of exact match over the base: lower end of the 95 % interval."""
    max_subgroup_gap: Rate | None = 0.2
    """Largest significant difference of exact match between two subgroups."""
    max_retention_loss: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    """Most that general text may get worse, in bits a character."""
    max_bias_shift: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    """Most that the bias probe may shift towards stereotypes: mean log-likelihood ratio, nats."""

    @property
    def sha256(self) -> str:
        """Digest of all limits."""
        return sha256_json(self.model_dump(mode="json"))


class PipelineConfig(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "triage"
    """Name of the model in the registry."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of everything random."""
    ingest: IngestConfig = IngestConfig()
    """Stage 1: read sources into canonical records."""
    terms: TermsConfig = TermsConfig()
    """Licences, consent and erasure."""
    validation: ValidationConfig = ValidationConfig()
    """Stage 2: rows that cannot be trained on go to quarantine."""
    privacy: PrivacyConfig = PrivacyConfig()
    """Stage 3: what happens to each kind of identifier."""
    dedup: DedupConfig = DedupConfig()
    """Stage 4: exact and near duplicates."""
    split: SplitConfig = SplitConfig()
    """Stage 5: train, validation and test."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Stage 6: training rows that overlap held-out items."""
    bias: BiasConfig = BiasConfig()
    """Stage 7: representation and association in the training text."""
    model: ModelConfig = ModelConfig()
    """The base model."""
    tokenization: TokenizationConfig = TokenizationConfig()
    """Stage 8: template, length, loss mask."""
    training: TrainingConfig = TrainingConfig()
    """Stage 9: LoRA fine-tuning."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Stage 10: base against tuned."""
    card: CardConfig = CardConfig()
    """Stage 11: what only people know."""
    policy: PolicyConfig = PolicyConfig()
    """Every limit of the run."""

    @model_validator(mode="after")
    def _held_out_is_less_than_all(self) -> PipelineConfig:
        held_out = self.split.validation_rate + self.split.test_rate
        if held_out > 0.8:
            raise ValueError(
                f"split.validation_rate + split.test_rate is {held_out:g}, at most 0.8: "
                "lower one so that rows are left to train on"
            )
        return self

    @model_validator(mode="after")
    def _four_bits_are_not_trained(self) -> PipelineConfig:
        if self.model.load_in_4bit and self.training.peft_type == "NONE":
            raise ValueError(
                "model.load_in_4bit with training.peft_type: NONE: 4-bit weights cannot be "
                "trained; choose an adapter, such as LORA"
            )
        if self.model.load_in_4bit and self.training.lora.starts_from_base:
            raise ValueError(
                "model.load_in_4bit with training.lora.init_lora_weights: pissa: a 4-bit weight "
                "has no part that could be taken out; leave it at true"
            )
        return self

    @property
    def sha256(self) -> str:
        """Digest of the whole config."""
        return sha256_json(self.model_dump(mode="json"))


DEMO = PipelineConfig(privacy=PrivacyConfig(secret="drop"))
"""The demo run: the defaults, but for the secrets planted in it, which would stop the run."""
