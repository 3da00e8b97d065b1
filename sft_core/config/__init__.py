"""One schema for a run: a section a stage, a bound on every number, help on every field.

The defaults are the demo run. Fields that PEFT, TRL or transformers know keep upstream's names.
Limits live in one section, `policy`, which is hashed and sealed before training starts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sft_core.config.data import (
    BenchmarkFile,
    BiasConfig,
    Columns,
    ContaminationConfig,
    DedupConfig,
    IngestConfig,
    PrivacyConfig,
    Shares,
    SourceConfig,
    SplitConfig,
    TermsConfig,
    ValidationConfig,
)
from sft_core.config.judgement import (
    CardConfig,
    ChoiceFile,
    EvaluationConfig,
    FairnessConfig,
    GenerationConfig,
    MemorisationConfig,
    PairsFile,
    PolicyConfig,
    RetentionConfig,
    RobustnessConfig,
)
from sft_core.config.section import Section
from sft_core.config.training import (
    AttributionConfig,
    Ia3Section,
    LoraSection,
    ModelConfig,
    PrefixTuningSection,
    PromptTuningSection,
    TokenizationConfig,
    TrainingConfig,
)
from sft_core.records import sha256_json

__all__ = [
    "DEMO",
    "AttributionConfig",
    "BenchmarkFile",
    "BiasConfig",
    "CardConfig",
    "ChoiceFile",
    "Columns",
    "ContaminationConfig",
    "DedupConfig",
    "EvaluationConfig",
    "FairnessConfig",
    "GenerationConfig",
    "Ia3Section",
    "IngestConfig",
    "LoraSection",
    "MemorisationConfig",
    "ModelConfig",
    "PairsFile",
    "PipelineConfig",
    "PolicyConfig",
    "PrefixTuningSection",
    "PrivacyConfig",
    "PromptTuningSection",
    "RetentionConfig",
    "RobustnessConfig",
    "Section",
    "Shares",
    "SourceConfig",
    "SplitConfig",
    "TermsConfig",
    "TokenizationConfig",
    "TrainingConfig",
    "ValidationConfig",
]


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
    attribution: AttributionConfig = AttributionConfig()
    """After stage 9: which training rows pushed the model to or away from an answer."""
    generation: GenerationConfig = GenerationConfig()
    """How the models under test answer."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Stage 10: base against tuned."""
    retention: RetentionConfig = RetentionConfig()
    """After stage 10: what the model could do before."""
    robustness: RobustnessConfig = RobustnessConfig()
    """After stage 10: the same questions typed badly, or put in another way."""
    memorisation: MemorisationConfig = MemorisationConfig()
    """Planted canaries; after stage 10, what the model learned by heart."""
    fairness: FairnessConfig = FairnessConfig()
    """After stage 10: stereotypes, and answers by group."""
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
