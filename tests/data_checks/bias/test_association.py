import math

import numpy as np
import pytest

from data_checks.bias.association import associated_words, weighted_log_odds
from data_checks.bias.cased_words import cased_words
from data_checks.bias.lexicon import WordList
from data_checks.bias.word_counts import WordCounts

GROUPS = (("sex", "female"), ("sex", "male"))


def listed(*terms, dimensions=None):
    heading = {"source": "own", "terms": terms, "dimensions": dimensions}
    head = {"name": "n", "language": "en", "licence": "CC0-1.0", "source": "own"}
    return WordList.model_validate({**head, "headings": {"some": heading}})


def associations(rows, occupation=("nurse",), clinical=("pregnant",)):
    """Associations of prompts, given as text and group; there are no completions."""
    counts = WordCounts(4)
    counts.add([cased_words(text) for text, _ in rows], [[group] for _, group in rows])
    lists = {"occupation": listed(*occupation), "clinical": listed(*clinical, dimensions=["sex"])}
    return associated_words(counts, GROUPS, GROUPS, {"sex": frozenset({"she", "he"})}, lists)


def test_weighted_log_odds_by_hand():
    # 10 words on each side, so the prior of a word is (1000 / 20) times its count on both sides.
    # First word here: 8 + 500 = 508 of 1010; elsewhere: 2 + 500 = 502 of 1010.
    delta = math.log((508 / 502) / (502 / 508))
    z = delta / math.sqrt(1 / 508 + 1 / 502)
    deltas, zs = weighted_log_odds(np.array([8, 2, 0]), np.array([2, 8, 0]))
    assert deltas == pytest.approx([delta, -delta, 0])
    assert zs == pytest.approx([z, -z, 0])


def test_weighted_log_odds_at_the_edges():
    nothing, some = np.array([0, 0]), np.array([1, 2])
    assert not weighted_log_odds(nothing, some)[0].any()
    assert not weighted_log_odds(some, nothing)[0].any()
    assert not weighted_log_odds(np.array([3]), np.array([2]))[0].any()
    assert weighted_log_odds(np.array([3, 0]), np.array([0, 2]))[0][0] > 0


def rows_with(word, num_female, num_male):
    """100 prompts of each sex; some have the word."""
    rows = []
    for group, num in enumerate((num_female, num_male)):
        for k in range(100):
            pronoun = ("She", "He")[group]
            rows.append((f"{pronoun} is here {word if k < num else 'today'}", group))
    return rows


def test_words_are_told_apart_by_the_lists():
    for word, kind in (("nurse", "occupation"), ("pregnant", "clinical"), ("happy", "word")):
        found, withheld = associations(rows_with(word, 60, 5))
        first = next(each for each in found if each.word == word)
        assert (first.kind, first.group, first.place) == (kind, GROUPS[0], "prompt")
        assert (first.rows, first.rows_elsewhere) == (60, 5)
        assert first.z > 3
        assert first.q < 0.001
        assert withheld == 0
        # The other side of it: men are here today.
        assert ("today", GROUPS[1]) in {(each.word, each.group) for each in found}


def test_own_terms_rare_words_and_chance_are_no_associations():
    assert associations(rows_with("happy", 4, 0)) == ([], 0)
    assert associations(rows_with("happy", 30, 30)) == ([], 0)
    found, _ = associations(rows_with("happy", 60, 5))
    assert {each.word for each in found} == {"happy", "today"}


def test_likely_names_are_counted_but_not_shown():
    found, withheld = associations(rows_with("Natalia", 60, 5))
    assert "natalia" not in {each.word for each in found}
    assert withheld == 1
    # Written as a word nine times in ten, it is one.
    rows = rows_with("Rose", 6, 0) + rows_with("rose", 60, 5)
    assert "rose" in {each.word for each in associations(rows)[0]}
    # A listed word is no name, however it is written.
    assert "nurse" in {each.word for each in associations(rows_with("Nurse", 60, 5))[0]}


def test_text_without_capitals_says_nothing_about_names():
    rows = [(text.lower(), group) for text, group in rows_with("natalia", 60, 5)]
    found, withheld = associations(rows)
    assert found == []
    assert withheld == 2


def test_occupations_are_a_family_of_their_own():
    # 12 of 100 against 1 of 100, among 900 other words that go with nobody.
    noise = [f"filler{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(600)]
    rows = [(f"{text} {' '.join(noise)}", group) for text, group in rows_with("nurse", 14, 1)]
    alone = associations(rows)[0]
    assert "nurse" in {each.word for each in alone}
    drowned = associations(rows, occupation=("plumber",))[0]
    assert "nurse" not in {each.word for each in drowned}
