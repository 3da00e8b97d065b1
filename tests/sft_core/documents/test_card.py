"""The card's own words; most of it is checked on whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sft_core.config import PipelineConfig
from sft_core.documents.card import render_card
from tests.sft_core.small_record import small_record


@pytest.mark.parametrize(
    ("method", "library", "tags"),
    [
        ("LORA", "peft", ["lora", "sft", "tunetrail"]),
        ("IA3", "peft", ["ia3", "sft", "tunetrail"]),
        ("NONE", "transformers", ["sft", "tunetrail"]),
    ],
)
def test_the_metadata_names_what_was_trained(
    method: str, library: str, tags: list[str], home: Path
) -> None:
    training = PipelineConfig().training.model_dump(mode="json") | {"peft_type": method}
    _, metadata, _ = render_card(small_record(training=training)).split("---\n", 2)
    found = yaml.safe_load(metadata)
    assert (found["library_name"], found["tags"]) == (library, tags)
