import random

from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.exact_duplicates import find_exact_duplicates
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


@given(st.lists(st.text(alphabet="aA b", max_size=4), max_size=12))
@settings(deadline=None)
def test_what_remains_has_no_duplicates(prompts):
    rows = [chat(i, prompt, "x") for i, prompt in enumerate(prompts)]
    duplicates = find_exact_duplicates(rows)
    assert find_exact_duplicates([r for r in rows if r.row not in duplicates]) == {}
    assert all(original < row for row, original in duplicates.items())
