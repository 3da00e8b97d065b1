"""Each point says who or what answers it, and what nobody answers is counted as missing."""

import hashlib
import re

import pytest
from pydantic import ValidationError

from sft_core.config import PipelineConfig
from sft_core.config.file import load_config
from sft_core.errors import ConfigError
from sft_core.exports.annex_iv import annex_iv_answers, annex_iv_metrics, render_annex_iv
from sft_core.exports.ml_bom import render_ml_bom
from tests.conftest import change
from tests.sft_core.exports.tuned_record import tuned_record
from tests.sft_core.small_record import small_record

SIGNED = {"signer": "Jo Doe, product owner", "signed": "2026-02-03"}
SECTIONS = """
1a: {text: It sorts referral notes., signer: "Jo Doe, product owner", signed: 2026-02-03}
1f: {not_applicable: It is part of no product., signer: "Jo Doe, product owner", signed: 2026-02-03}
"""


@pytest.fixture
def card():
    return PipelineConfig().card.model_dump(mode="json")


@pytest.fixture
def record(home):
    return tuned_record()


def states(record):
    return {answer.point: answer.state for answer in annex_iv_answers(record)}


def test_what_only_people_can_say_is_missing_until_they_do(record, card):
    found = states(record)
    automatic = {"1c", "2a", "2c-compute", "2d-data", "2g-tests", "3-performance"}
    assert {point for point, state in found.items() if state == "automatic"} == automatic
    assert {state for point, state in found.items() if point not in automatic} == {"MISSING"}
    said = {
        "1a": SIGNED | {"text": "It sorts referral notes.", "not_applicable": ""},
        "1f": SIGNED | {"text": "", "not_applicable": "It is part of no product."},
    }
    told = tuned_record(card=card | {"annex_iv": said})
    assert states(told) == found | {"1a": "human text", "1f": "not applicable"}
    # 29 points: 6 automatic, 1 human text, 1 not applicable, 21 missing
    assert annex_iv_metrics(told) == {
        "annex_iv_coverage": pytest.approx(8 / 29),
        "num_annex_iv_automatic": 6,
        "num_annex_iv_human_text": 1,
        "num_annex_iv_not_applicable": 1,
        "num_annex_iv_missing": 21,
    }
    text = render_annex_iv(told)
    assert "It sorts referral notes." in text
    assert "Signed: Jo Doe, product owner, 2026-02-03" in text
    assert "Not applicable: It is part of no product." in text
    assert text.count("**MISSING**") == 21


def test_artifacts_have_the_digests_of_what_is_stored(record):
    answers = {answer.point: dict(answer.artifacts) for answer in annex_iv_answers(record)}
    bom = hashlib.sha256(render_ml_bom(record).encode()).hexdigest()
    assert answers["1c"] == {"ml_bom.cdx.json": bom}
    evaluate = record.report("evaluate")
    assert answers["3-performance"] == {
        "reports/evaluate.json": hashlib.sha256(evaluate.to_json()).hexdigest(),
        "evaluate: items": evaluate.files["items"].sha256,
    }
    shown = set(re.findall(r"\b[0-9a-f]{64}\b", render_annex_iv(record)))
    assert shown == {digest for found in answers.values() for digest in found.values()}


def test_a_run_that_ended_early_answers_less(home):
    early = tuned_record().model_copy(update={"reports": ()})
    assert {point for point, state in states(early).items() if state != "MISSING"} == {"1c"}
    assert "28 are MISSING" in render_annex_iv(early)
    nothing = small_record().model_copy(update={"reports": ()})  # and no list of packages
    assert set(states(nothing).values()) == {"MISSING"}


def test_it_claims_nothing(record):
    text = " ".join(render_annex_iv(record).split())
    assert "no claim that the system complies" in text
    assert not re.search(r"\b(compliant|certified|conforms)\b", text)


def test_a_section_file_is_read_with_the_config_and_kept_in_it(tmp_path):
    (tmp_path / "annex.yaml").write_text(SECTIONS)
    (tmp_path / "run.yaml").write_text(f"card: {{annex_iv: {tmp_path}/annex.yaml}}")
    config = load_config(tmp_path / "run.yaml")
    (tmp_path / "annex.yaml").unlink()
    assert config.card.annex_iv["1a"].text == "It sorts referral notes."
    again = PipelineConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert change(config, card={}).sha256 == config.sha256 != PipelineConfig().sha256


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path):
    (tmp_path / "run.yaml").write_text("card: {annex_iv: nowhere.yaml}")
    with pytest.raises(ConfigError, match=r"annex_iv: nowhere\.yaml: cannot be read as YAML"):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("point", "answer", "message"),
    [
        ("1z", SIGNED | {"text": "yes"}, "1z"),
        ("1a", {"text": "yes", "signed": "2026-02-03"}, "signer"),
        ("1a", {"text": "yes", "signer": "Jo Doe"}, "signed"),
        ("1a", SIGNED, "either text or not_applicable"),
        ("1a", SIGNED | {"text": "yes", "not_applicable": "no"}, "not both"),
    ],
)
def test_nobody_answers_without_a_name_a_day_and_one_answer(point, answer, message):
    with pytest.raises(ValidationError, match=message):
        change(PipelineConfig(), card={"annex_iv": {point: answer}})


def test_hostile_text_stays_plain(card, home):
    hostile = "# Head\n| a | <img src=x> [link](http://evil.example) `x`"
    said = {"1a": SIGNED | {"text": hostile, "not_applicable": ""}}
    text = render_annex_iv(tuned_record(card=card | {"annex_iv": said}))
    assert "<img" not in text
    assert "://evil" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "\n# Head" not in text
