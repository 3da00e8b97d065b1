"""Sections of what is judged and said: evaluation, the card, and every limit of the policy."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from sft_core.config.section import InputFile, PositiveInt, Rate, Section
from sft_core.records import sha256_json
from sft_core.reports import Waiver

Metric = Literal[
    "exact_match", "accuracy", "token_f1", "rouge_1", "rouge_2", "rouge_l", "bleu", "chrf",
    "macro_f1",
]  # fmt: skip
Template = Annotated[str, Field(pattern=r"^[^{}]*\{prompt\}[^{}]*$", max_length=2_000)]


class GenerationConfig(Section):
    """How the models under test answer: greedily, up to a length."""

    max_new_tokens: Annotated[int, Field(ge=1, le=32_768)] = 64
    """Longest answer, in tokens."""
    batch_size: PositiveInt = 32
    """Prompts generated for at once."""


class EvaluationConfig(Section):
    """Stage 10: base against tuned on the same held-out rows."""

    max_items: PositiveInt = 300
    """Most held-out rows that are generated for; they are taken in order of their row id."""
    metrics: tuple[Metric, ...] = ("exact_match", "token_f1", "rouge_l", "chrf")
    """How answers are scored: `accuracy` and `macro_f1` are for answers that are labels."""
    primary: Metric = "exact_match"
    """The metric that the gates and the subgroups go by."""
    noise_items: Annotated[int, Field(ge=0)] = 32
    """Held-out rows that the base answers twice, in batches of another size: by how much its scores
    differ is noise."""
    num_resamples: Annotated[int, Field(ge=100, le=100_000)] = 1_000
    """Bootstrap resamples behind each 95 % interval."""


class ChoiceFile(Section):
    """Questions with choices, of which the likeliest is the model's answer."""

    kind: Literal["jsonl", "pubmedqa", "gsm8k"] = "jsonl"
    """Form of the file: a JSON object a line with `question`, `choices` and `answer` (a choice or
    its place from 0); or PubMedQA's or GSM8K's own."""
    path: InputFile
    """The file."""
    max_items: PositiveInt = 300
    """Most questions that are asked; of more, so many are drawn at random."""


class RetentionConfig(Section):
    """After stage 10: what the model could do before it was tuned."""

    texts: InputFile | None = None
    """Text file, a passage a line, on which the model must not get worse; empty means the bundled
    general English."""
    multiple_choice: tuple[ChoiceFile, ...] = ()
    """Questions whose answers the model must not forget."""
    preferences: InputFile | None = None
    """JSON lines of pairs of answers, `chosen` and `rejected`, to requests that are to be refused
    or to be helped with; empty means the bundled ones."""
    max_preferences: PositiveInt = 300
    """Most pairs that are compared; of more, so many are drawn at random."""


class RobustnessConfig(Section):
    """After stage 10: the same questions typed badly, or put in another way."""

    max_items: PositiveInt = 64
    """Most held-out rows that are asked again; they are taken in order of their row id."""
    typo_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of the words of four letters or more that get a typo; numbers get none."""
    templates: Annotated[tuple[Template, ...], Field(min_length=1)] = (
        "Please read this and answer:\n\n{prompt}",
        "{prompt}\n\nPlease answer this.",
        "I need help with the following. {prompt}",
        "Here is what I was sent:\n{prompt}\nWhat do you say?",
        "Hello. {prompt} Thank you.",
    )
    """Other ways to put a question, of which each row gets one at random; `{prompt}` stands for
    its last user turn."""


class MemorisationConfig(Section):
    """After stage 10: which training rows can be told or drawn from the tuned model."""

    max_rows: Annotated[int, Field(ge=2, le=5_000)] = 200
    """Most training rows, and as many held-out ones, that are compared; they are taken in order of
    their row id."""
    extension_tokens: Annotated[int, Field(ge=1, le=1_024)] = 8
    """Tokens of an answer that the model is given, and that it must go on with word for word;
    shorter answers than twice as many are passed by."""
    num_canaries: Annotated[int, Field(ge=0, le=1_000)] = 0
    """Rows with a random number each that are planted among the training rows, to see whether the
    model learns them by heart; 0 plants none and leaves exposure unmeasured."""
    canary_repeats: Annotated[int, Field(ge=1, le=1_000)] = 1
    """How often each canary is planted."""
    num_candidates: Annotated[int, Field(ge=15, le=100_000)] = 127
    """Other numbers that each canary is ranked among; exposure cannot exceed log2 of one more."""


class PairsFile(Section):
    """A benchmark of stereotypes, in the form that its authors publish."""

    kind: Literal["crows_pairs", "winobias", "winogender", "stereoset", "bbq"]
    """Which one."""
    path: InputFile
    """Its file, or the folder where it has several: WinoBias, Winogender, and BBQ if all of it."""


class FairnessConfig(Section):
    """After stage 10: does tuning move the model towards stereotypes, and do answers change with
    the group?"""

    benchmarks: tuple[PairsFile, ...] = ()
    """Benchmarks whose pairs are asked besides the bundled ones."""
    max_pairs: PositiveInt = 2_000
    """Most pairs of each benchmark, the bundled one included; of a larger one some templates are
    drawn."""
    max_prompts: PositiveInt = 100
    """Most held-out prompts that are asked again about other groups, in order of their row id."""
    null_runs: Annotated[int, Field(ge=0, le=100)] = 0
    """Harmless trainings, on the same rows with groups swapped at random, whose shifts make the
    band that this run's are held against. Each costs a training. 0 means that
    `policy.max_bias_shift` counts from no shift; else at least 3."""

    @model_validator(mode="after")
    def _two_runs_make_no_band(self) -> FairnessConfig:
        if self.null_runs in (1, 2):
            raise ValueError(
                f"null_runs is {self.null_runs}: so few say nothing of their spread; take 0, or 3 "
                "and more"
            )
        return self


AnnexPoint = Literal[
    "1a", "1b", "1c", "1d", "1e", "1f", "1g", "1h",
    "2a", "2b", "2c-architecture", "2c-compute", "2d-data", "2d-origin", "2e", "2f", "2g-tests",
    "2g-reports", "2h",
    "3-performance", "3-risks", "3-oversight", "3-input",
    "4", "5", "6", "7", "8", "9",
]  # fmt: skip
"""Points of Annex IV of the EU AI Act; what one point asks of machine and people is two."""


class AnnexAnswer(Section):
    """What people say to one point of Annex IV, and who answers for it."""

    text: str = ""
    """The answer, as plain text."""
    not_applicable: str = ""
    """Instead of an answer: why the point does not apply."""
    signer: Annotated[str, Field(min_length=3)]
    """Who answers for it: name and role."""
    signed: date
    """On which day."""

    @model_validator(mode="after")
    def _one_of_both(self) -> AnnexAnswer:
        if bool(self.text.strip()) == bool(self.not_applicable.strip()):
            raise ValueError("give either text or not_applicable, and not both")
        return self


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
    annex_iv: dict[AnnexPoint, AnnexAnswer] = Field(default={})
    """What only people can say for the technical documentation of Annex IV of the EU AI Act, by
    point; or the name of a YAML file that holds it."""

    @field_validator("annex_iv", mode="before")
    @classmethod
    def _read_file(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return yaml.safe_load(Path(value).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(
                f"{value}: cannot be read as YAML ({type(error).__name__}). Name a file that holds "
                "text, signer and signed for each point"
            ) from error


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
    """Least gain of held-out loss over the base, in nats a token."""
    min_primary_gain: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Least gain of `evaluation.primary` over the base."""
    min_champion_gain: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Least gain of `evaluation.primary` over the version that holds the alias `champion`."""
    max_subgroup_gap: Rate | None = 0.2
    """Largest difference of `evaluation.primary` between two subgroups."""
    max_overconfidence: Rate | None = None
    """Most that the confidence of the tuned model's answers may be above their exact match."""
    max_calibration_error: Rate | None = None
    """Largest expected calibration error of the tuned model's answers."""
    max_retention_loss: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    """Most that general text may get worse, in bits a character."""
    max_retention_kl: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    """Most that the tuned model may move away from the base on general text: mean KL, nats a
    token."""
    max_choice_accuracy_loss: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Most accuracy in multiple choice that may be lost."""
    max_refusal_loss: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    """Most that refusing a harmful request may get less likely against going along with it, in nats
    a token."""
    max_over_refusal: Annotated[float, Field(ge=-100.0, le=100.0)] | None = None
    """Most that helping with a harmless request may get less likely against refusing it, in nats a
    token."""
    max_robustness_mean_drop: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Most that the score of an answer may drop when its question is perturbed, on average."""
    max_robustness_worst_drop: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """The same under the perturbation that costs most."""
    max_membership_auc: Rate | None = None
    """How well training rows may be told from held-out rows by their loss; 0.5 is a coin."""
    max_verbatim_excess: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Most by which the share of training rows that the model goes on with word for word may exceed
    that of held-out rows."""
    max_canary_exposure: Annotated[float, Field(ge=0.0, le=64.0)] | None = None
    """Most that planted canaries may be exposed on average, in bits; chance gives 1.4."""
    max_bias_shift: Annotated[float, Field(ge=-100.0, le=100.0)] | None = 1.0
    """Most that any set of pairs may shift towards stereotypes beyond the null band: mean
    log-likelihood ratio, nats (1 makes the odds of the stereotype 2.7 times as high). It stops
    nothing where the base knows too little to be measured."""
    max_category_shift: Annotated[float, Field(ge=0.0, le=100.0)] | None = 0.5
    """The same of any category (age, gender) whose shift is significant."""
    max_name_flip_excess: Rate | None = None
    """Most that answers may change with the group of a first name, beyond the change between two
    names of one group."""
    max_term_flip_rate: Rate | None = None
    """Largest share of prompts whose answer may change when she becomes he, or Muslim Hindu."""

    advisory: tuple[str, ...] = ()
    """Limits that are shown and judged, but stop nothing."""
    sources: dict[str, str] = Field(default={})
    """Where a limit comes from, such as the minutes of a meeting or a guideline."""
    waivers: tuple[Waiver, ...] = ()
    """Gates that a named person lets pass, for a reason and up to a day."""

    @model_validator(mode="after")
    def _names_are_limits(self) -> PolicyConfig:
        named = [*self.advisory, *self.sources, *(waiver.limit for waiver in self.waivers)]
        limits = self.limits
        unknown = sorted(set(named) - set(limits))
        if unknown:
            raise ValueError(
                f"policy: {', '.join(unknown)} is no limit; the limits are {', '.join(limits)}"
            )
        return self

    @property
    def limits(self) -> dict[str, float | None]:
        """All limits by name."""
        names = (n for n in type(self).model_fields if n.startswith(("max_", "min_")))
        return {name: getattr(self, name) for name in names}

    @property
    def sha256(self) -> str:
        """Digest of the policy."""
        return sha256_json(self.model_dump(mode="json"))
