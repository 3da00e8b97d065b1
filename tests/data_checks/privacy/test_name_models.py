"""A recogniser that the user names is asked as well, and its mistakes are told to the user."""

import re

import pytest

from data_checks.privacy.identifiers import protect
from data_checks.privacy.name_models import load_recogniser
from sft_core.config import PrivacyConfig
from sft_core.errors import ConfigError
from sft_core.records import Record

_FIRST_NAMES = re.compile(r"\b(?:Ana|Hugo|Renée)(?: [A-Z]\w+)?")


def first_names(texts):
    """A small recogniser: a gazetteer of first names, with the word after them."""
    return [[("name", *m.span()) for m in _FIRST_NAMES.finditer(text)] for text in texts]


def unknown_kind(texts):
    return [[("person", 0, 1)] for _ in texts]


def too_few(texts):
    return []


not_a_function = 3


def protected(text, ner):
    row = Record(0, "", [{"role": "user", "content": text}], {"note": "by Hugo"})
    return protect(row, PrivacyConfig(ner=f"{__name__}:{ner}" if ner else None))


def test_names_without_a_cue_are_found_by_the_recogniser_alone():
    text = "Yesterday Ana Silva and Mr Jones met."
    assert protected(text, None).record.messages[0]["content"].count("NAME_") == 1
    result = protected(text, "first_names")
    assert result.record.messages[0]["content"] == "Yesterday [NAME_1] and Mr [NAME_2] met."
    assert result.record.meta == {"note": "by [NAME_3]"}
    assert result.decision.evidence == "name@0:10-19 name@0:27-32 name@meta:3-7"


def test_formats_win_over_the_recogniser():
    result = protected("Write to Ana@example.org", "first_names")
    assert result.record.messages[0]["content"] == "Write to [EMAIL_1]"


@pytest.mark.parametrize(
    ("ner", "says"),
    [
        ("unknown_kind", "returned the kind 'person'"),
        ("too_few", "returned 0 lists for 2 texts"),
        ("not_a_function", "is a int, not a function"),
        ("nothing_of_the_name", "cannot be imported"),
    ],
)
def test_an_unusable_recogniser_is_a_config_error(ner, says):
    with pytest.raises(ConfigError, match=says):
        protected("Ana came.", ner)


def test_presidio_says_what_is_missing():
    with pytest.raises(ConfigError, match="not installed"):
        load_recogniser("presidio:no_such_model")


def test_presidio_with_a_blank_pipe(tmp_path):
    """Without a trained model it finds formats, not names; what it finds has a kind of ours."""
    pytest.importorskip("presidio_analyzer", reason="presidio-analyzer is not installed")
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    find = load_recogniser(f"presidio:{tmp_path / 'blank'}")
    ((found,),) = [find(["Write to ana@example.org today"])]
    assert ("email", 9, 24) in found
