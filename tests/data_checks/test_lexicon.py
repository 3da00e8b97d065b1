import json

import pytest

from data_checks.lexicon import BUNDLED, MentionFinder, load_lexicon
from data_checks.text import words
from sft_core.errors import ConfigError


def write(folder, dimensions, **other):
    path = folder / "lexicon.json"
    head = {"name": "mine", "language": "en", "licence": "CC0-1.0", "source": "own"}
    path.write_text(json.dumps({**head, "dimensions": dimensions, **other}), encoding="utf-8")
    return str(path)


def find(text, path=None):
    return MentionFinder(load_lexicon(path)).find(words(text))


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
