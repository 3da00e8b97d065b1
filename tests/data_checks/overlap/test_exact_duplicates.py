import random

from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.overlap.exact_duplicates import find_exact_duplicates
from data_checks.text import normalise, words
from sft_core.records import Record


def record(row, *turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    return Record(row, str(row), messages)


def chat(row, prompt, completion):
    return record(row, ("user", prompt), ("assistant", completion))


def test_case_width_and_space_do_not_make_a_difference():
    rows = [
        chat(0, "What is  FEVER?", "High temperature."),
        chat(1, " what is fever?\n", "high\ttemperature."),
        chat(2, "what is ｆｅｖｅｒ?", "High temperature."),
    ]
    assert find_exact_duplicates(rows) == {1: 0, 2: 0}


def test_equal_prompts_with_different_completions_are_no_duplicates():
    assert find_exact_duplicates([chat(0, "Sex?", "female"), chat(1, "Sex?", "male")]) == {}


def test_punctuation_makes_a_difference():
    assert find_exact_duplicates([chat(0, "5 mg?", "no"), chat(1, "-5 mg?", "no")]) == {}


def test_roles_and_borders_between_turns_make_a_difference():
    rows = [
        record(0, ("user", "a b"), ("assistant", "c")),
        record(1, ("user", "a"), ("assistant", "b c")),
        record(2, ("assistant", "a b"), ("user", "c")),
        record(3, ("user", "a"), ("user", "b"), ("assistant", "c")),
    ]
    assert find_exact_duplicates(rows) == {}


def test_system_prompts_make_no_difference():
    rows = [
        record(3, ("system", "be brief"), ("user", "a"), ("assistant", "b")),
        record(5, ("user", "a"), ("assistant", "b")),
    ]
    assert find_exact_duplicates(rows) == {5: 3}


def test_no_rows():
    assert find_exact_duplicates([]) == {}


def test_planted_duplicates_are_found_exactly():
    rng = random.Random(0)
    rows = [chat(i, f"Question {i} of the set", f"Answer {i}") for i in range(500)]
    planted = {}
    for row in range(500, 537):
        original = rng.randrange(500)
        planted[row] = original
        rows.append(chat(row, f"QUESTION {original}  of the set", f"answer {original} "))
    assert find_exact_duplicates(iter(rows)) == planted


conversations = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["user", "assistant", "system"]),
            st.text(alphabet="aA \t\n\x1c\u00a0\u200bＡß", max_size=4),
        ),
        max_size=3,
    ),
    max_size=10,
)


@given(conversations, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_equal_after_normalisation_and_nothing_else(turns, rng):
    rows = [record(i, *own) for i, own in enumerate(turns)]
    first, expected = {}, {}
    for row, own in enumerate(turns):
        key = tuple((role, normalise(text)) for role, text in own if role != "system")
        if first.setdefault(key, row) != row:
            expected[row] = first[key]
    assert find_exact_duplicates(rows) == expected
    assert find_exact_duplicates(rng.sample(rows, len(rows))) == expected
    assert find_exact_duplicates([r for r in rows if r.row not in expected]) == {}
    # Why the earliest stays by either rule: duplicates have equally many words.
    for row, original in expected.items():
        assert len(words(rows[row].text())) == len(words(rows[original].text()))
