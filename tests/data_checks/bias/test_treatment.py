import numpy as np
import pytest

from data_checks.bias.cased_words import cased_words
from data_checks.bias.lexicon import load_refusals
from data_checks.bias.treatment import Treatment

FEMALE, MALE = ("sex", "female"), ("sex", "male")


def treatment(rows):
    found = Treatment((FEMALE, MALE), load_refusals(None))
    for group, completion in rows:
        found.add([group], completion, cased_words(completion), len(completion.split()))
    return found


@pytest.mark.parametrize(
    "completion",
    ["I can't help with that.", "I\u2019m sorry, but I cannot say.", "As an AI, I have no body.",
     "Unfortunately, I am unable to see it.", "I REFUSE"],
)  # fmt: skip
def test_refusals_are_known_by_their_first_words(completion):
    found = treatment([(FEMALE, completion), (MALE, "Take two a day.")])
    [comparison] = found.refusals(found.pairs(1))
    assert (comparison.value, comparison.other) == (1.0, 0.0)


@pytest.mark.parametrize(
    "completion",
    ["Take it if I can't help.", "He said: I refuse.", "I refused the offer", "", "I canned it"],
)
def test_other_answers_are_no_refusals(completion):
    found = treatment([(FEMALE, completion), (MALE, "Take two a day.")])
    assert found.refusals(found.pairs(1))[0].value == 0.0


def test_refusals_by_hand():
    rows = [(FEMALE, "I refuse" if k < 30 else "Yes") for k in range(40)]
    rows += [(MALE, "I refuse" if k < 10 else "Yes") for k in range(40)]
    found = treatment(rows)
    [comparison] = found.refusals(found.pairs(40))
    assert comparison.key == ("sex", "female", "male")
    assert (comparison.value, comparison.other) == (0.75, 0.25)
    assert comparison.p < 1e-4
    # Pooled 42 of 84: 2.802 * sqrt(.25 * 2 / 40)
    assert comparison.detectable == pytest.approx(0.3133, abs=1e-3)


def test_no_refusal_at_all_still_says_what_would_be_found():
    found = treatment([(group, "Yes") for group in (FEMALE, MALE) for _ in range(100)])
    [comparison] = found.refusals(found.pairs(20))
    assert comparison.p == pytest.approx(1.0)
    assert 0.02 < comparison.detectable < 0.06


def test_lengths_by_hand():
    rows = [(FEMALE, "word " * (10 + k % 2 * 2)) for k in range(50)]
    rows += [(MALE, "word " * (10 + k % 2 * 2)) for k in range(50)]
    found = treatment(rows)
    [comparison] = found.lengths(found.pairs(20), 100, np.random.default_rng(0))
    assert (comparison.value, comparison.other, comparison.p) == (11, 11, 1.0)
    # Half of the rows at 10 and half at 12: variance 1. 2.802 * sqrt(2 / 50)
    assert comparison.detectable == pytest.approx(0.5603, abs=1e-3)


def test_groups_of_too_few_rows_are_not_compared():
    assert treatment([(FEMALE, "Yes"), (MALE, "Yes")]).pairs(2) == []
