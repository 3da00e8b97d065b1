"""The key of a training's checkpoints changes with everything that the weights depend on."""

from dataclasses import replace

from sft_core.config import LoraSection, ModelConfig, TrainingConfig
from sft_core.reports import FileRef, ModelRef, StageReport
from tasks import training


def file(content):
    return FileRef(path=f"store/{content}", sha256=content)


TOKENS = StageReport(
    stage="tokenize",
    models={"base": ModelRef(path="base", sha256="base")},
    files={"chat_template": file("template")},
    private={"train": file("rows"), "validation": file("held out")},
)


def key(tokens=TOKENS, model=None, config=None, seed=0):
    return training.checkpoint_key(tokens, model or ModelConfig(), config or TrainingConfig(), seed)


def test_a_checkpoint_never_resumes_another_training(monkeypatch):
    others = [
        key(TOKENS.model_copy(update={"models": {"base": ModelRef(path="base", sha256="other")}})),
        key(TOKENS.model_copy(update={"files": {"chat_template": file("other")}})),
        key(TOKENS.model_copy(update={"private": TOKENS.private | {"train": file("other")}})),
        key(TOKENS.model_copy(update={"private": TOKENS.private | {"validation": file("other")}})),
        key(model=ModelConfig(model_name_or_path="other")),
        key(config=TrainingConfig(learning_rate=1e-4)),
        key(config=TrainingConfig(lora=LoraSection(r=8))),
        key(config=TrainingConfig(num_processes=2)),
        key(config=TrainingConfig(num_processes=3)),
        key(seed=1),
    ]
    assert key() == key()
    first = key()
    monkeypatch.setattr(training, "train", replace(training.train, source="other code"))
    assert len({first, key(), *others}) == len(others) + 2
