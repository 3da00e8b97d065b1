import json

import pytest

from data_checks.bias.cased_words import cased_words, folded
from data_checks.bias.lexicon import (
    BUNDLED,
    load_clinical_terms,
    load_lexicon,
    load_occupations,
    load_refusals,
)
from data_checks.bias.mentions import MentionFinder
from sft_core.errors import ConfigError


def write(folder, dimensions, **other):
    path = folder / "lexicon.json"
    head = {"name": "mine", "language": "en", "licence": "CC0-1.0", "source": "own"}
    path.write_text(json.dumps({**head, "dimensions": dimensions, **other}), encoding="utf-8")
    return str(path)


def find(text, path=None):
    return MentionFinder(load_lexicon(path)).find(folded(cased_words(text)))


def test_bundled_list_names_its_source_and_licence_and_several_dimensions():
    lexicon = load_lexicon(None)
    assert lexicon.source
    assert lexicon.licence == "CC0-1.0"
    assert {"sex", "age", "ethnicity", "religion"} <= lexicon.dimensions.keys()
    assert {"female", "male"} <= lexicon.dimensions["sex"].keys()


def test_whole_words_and_phrases_case_folded():
    assert find("SHE came")[0] == {("sex", "female")}
    assert find("The sheep ate chess cake")[0] == set()
    assert find("an African-American patient")[0] == {("ethnicity", "black")}
    assert find("Men who have sex with men.")[0] == {
        ("sex", "male"),
        ("sexual_orientation", "homosexual"),
    }


def test_ambiguous_terms_make_no_mention_of_their_own():
    assert find("a black coat") == (set(), {("ethnicity", "black")})
    assert find("a Black woman in a black coat") == (
        {("ethnicity", "black"), ("sex", "female")},
        set(),
    )


def test_a_lexicon_of_the_users_own(tmp_path):
    path = write(tmp_path, {"ward": {"north": {"terms": ["ward N"]}, "south": {"terms": ["S"]}}})
    assert find("moved to Ward N.", path) == ({("ward", "north")}, set())


def test_malformed_files_are_refused_with_the_place(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_lexicon(str(tmp_path / "missing.json"))
    with pytest.raises(ConfigError, match=r"bias\.lexicon: .*: dimensions\.sex\.female\.terms"):
        load_lexicon(write(tmp_path, {"sex": {"female": {}}}))
    with pytest.raises(ConfigError, match=r"dimensions\.Sex"):
        load_lexicon(write(tmp_path, {"Sex": {"female": {"terms": ["she"]}}}))
    with pytest.raises(ConfigError, match="unknown"):
        load_lexicon(write(tmp_path, {"sex": {"female": {"terms": ["she"]}}}, unknown=1))
    twice = {"male": {"terms": ["he"]}, "female": {"terms": ["She", "He!"]}}
    with pytest.raises(ConfigError, match="'He!' stands in male too"):
        load_lexicon(write(tmp_path, {"sex": twice}))
    with pytest.raises(ConfigError, match="has no word in it"):
        load_lexicon(write(tmp_path, {"sex": {"female": {"terms": ["?"]}}}))
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\x00{")
    with pytest.raises(ConfigError, match="the file"):
        load_lexicon(str(binary))


def test_bundled_file_is_read_by_its_own_path():
    assert load_lexicon(str(BUNDLED)) == load_lexicon(None)


def test_counterparts_and_references_name_groups_that_are_there(tmp_path):
    sex = {"sex": {"female": {"terms": ["she"]}, "male": {"terms": ["he"]}}}
    pair = {"female": ["she"], "male": ["he"]}
    own = {"counterparts": {"sex": [pair]}}
    own["references"] = {"sex": {"source": "census", "shares": {"female": 0.5, "male": 0.5}}}
    assert load_lexicon(write(tmp_path, sex, **own)).references["sex"].source == "census"
    for wrong, message in (
        ({"counterparts": {"age": [pair]}}, r"counterparts\.age: no dimension age"),
        ({"counterparts": {"sex": [{"female": ["she"]}]}}, r"counterparts\.sex\.0"),
        ({"counterparts": {"sex": [pair, pair]}}, "stands in row 0 too"),
        ({"counterparts": {"sex": [{"female": ["old she"], "male": ["he"]}]}}, "not one word"),
        (
            {"references": {"sex": {"source": "s", "shares": {"female": 0.5, "male": 0.6}}}},
            "sum to 1",
        ),
        ({"references": {"sex": {"source": "s", "shares": {"x": 0.5, "male": 0.5}}}}, "no group x"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_lexicon(write(tmp_path, sex, **wrong))


def test_bundled_counterparts_are_terms_of_their_own_group():
    lexicon = load_lexicon(None)
    for dimension, rows in lexicon.counterparts.items():
        groups = lexicon.dimensions[dimension]
        for row in rows:
            for group, terms in row.items():
                known = {
                    word
                    for term in (*groups[group].terms, *groups[group].ambiguous)
                    for word in term.split()
                }
                assert set(terms) <= known, (dimension, group)


def test_word_lists_name_their_sources_and_are_replaceable(tmp_path):
    clinical, occupations = load_clinical_terms(None), load_occupations(None)
    assert {"pregnancy", "prostate", "ovarian"} <= clinical.of("sex")
    assert "pregnancy" not in clinical.of("religion")
    assert {"farmer", "nurse"} <= occupations.of("sex") & occupations.of("age")
    assert not clinical.of("sex") & occupations.of("sex") - {"midwife"}
    for listed in (clinical, occupations):
        assert listed.licence == "CC0-1.0"
        assert all(heading.source for heading in listed.headings.values())
    head = {"name": "n", "language": "en", "licence": "CC0-1.0", "source": "own"}
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**head, "headings": {"a": {"source": "s", "terms": ["Ward"]}}}))
    assert load_occupations(str(path)).of("sex") == {"ward"}
    path.write_text(
        json.dumps({**head, "headings": {"a": {"source": "s", "terms": ["two words"]}}})
    )
    with pytest.raises(ConfigError, match=r"bias\.occupations: .*headings\.a: .* not one word"):
        load_occupations(str(path))
    path.write_text(json.dumps({**head, "openings": ["Not for you!"]}))
    assert load_refusals(str(path)) == ("not for you",)
    path.write_text(json.dumps(head))
    with pytest.raises(ConfigError, match=r"bias\.refusals: .*openings"):
        load_refusals(str(path))
