import gzip
import json
import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.overlap.containment import MAX_SHARING_TEXTS
from data_checks.overlap.contamination import Leak, find_contaminated
from data_checks.text import words
from sft_core.records import Record


def chat(row, prompt, completion=""):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return Record(row, str(row), messages)


def line(*numbers):
    return " ".join(f"w{k}" for k in numbers)


def leaks(rows, items, min_overlap=0.5, min_similarity=0.5):
    """(row, leak) of all that is found; every row comes back, in order."""
    judged = list(find_contaminated(rows, items, min_overlap, min_similarity))
    assert [record for record, _ in judged] == list(rows)
    return [(record.row, leak) for record, found in judged for leak in found]


def other_words(split, rng):
    """Every tenth word replaced, beginning anywhere."""
    start = rng.randrange(10)
    return ["new" if k % 10 == start else word for k, word in enumerate(split)]


def found(*args):
    """(row, item) of all that is found."""
    return [(row, leak.item) for row, leak in leaks(*args)]


def test_hand_computed_measures():
    # 20 words give 8 13-grams and 18 3-grams; a row with the first 16 words holds 4 and 14.
    item = line(*range(20))
    row = chat(5, "before " + line(*range(16)) + " after")
    expected = [(5, Leak("i", 4 / 8, 14 / 18))]
    assert leaks([row], [("i", item)], 0.5, 1.0) == expected
    assert leaks([row], [("i", item)], 0.51, 1.0) == []
    assert leaks([row], [("i", item)], 1.0, 14 / 18) == expected
    assert leaks([row], [("i", item)], 1.0, 0.78) == []


def test_an_edited_copy_is_similar_without_overlap():
    # Every tenth of 50 words is another. Of 48 3-grams, 3 are gone for each of 4 words and 1 for
    # the last word of all; no run of 13 words is left.
    copy = " ".join("x" if k % 10 == 9 else f"w{k}" for k in range(50))
    assert leaks([chat(0, copy)], [("i", line(*range(50)))]) == [(0, Leak("i", 0.0, 35 / 48))]


def test_a_question_is_found_in_a_row_with_a_long_answer():
    question, answer = line(*range(30)), line(*range(100, 700))
    assert leaks([chat(0, question, answer)], [("q", question)]) == [(0, Leak("q", 1.0, 1.0))]


def test_an_item_of_question_and_answer_is_found_by_the_larger_part():
    # 30 + 10 words give 38 3-grams, 28 of the question alone and 8 of the answer alone.
    item = line(*range(30)) + "\n" + line(*range(100, 110))
    assert [
        leak.similarity for _, leak in leaks([chat(0, line(*range(30)), "other")], [("i", item)])
    ] == [28 / 38]
    assert leaks([chat(0, "other", line(*range(100, 110)))], [("i", item)]) == []


def test_measures_are_of_one_row_and_run_over_prompt_and_completion():
    item = line(*range(40))
    halves = [chat(0, line(*range(20))), chat(1, line(*range(20, 40)))]
    assert leaks(halves, [("i", item)]) == []
    whole = chat(2, line(*range(20)), line(*range(20, 40)))
    assert leaks([whole], [("i", item)], 1.0, 1.0) == [(2, Leak("i", 1.0, 1.0))]


def test_repeated_ngrams_count_once():
    # 26 words give 14 13-grams and 24 3-grams, of which 13 and 13 are distinct; the row has one
    # 13-gram and 11 3-grams, each twice.
    item = line(*range(13), *range(13))
    row = chat(0, f"{line(*range(13))} x {line(*range(13))}")
    assert leaks([row], [("i", item)], 0.01, 1.0) == [(0, Leak("i", 1 / 13, 11 / 13))]


def test_items_of_five_to_twelve_words_leak_as_a_whole():
    items = [("five", "one two three four five"), ("other", "one two three four six")]
    rows = [
        chat(0, "He said: One, two; three four FIVE!"),
        chat(1, "one two three four"),
        chat(2, "one two three", "four five"),
        chat(3, "one two three x four five"),
        chat(4, "three four five", "one two three four"),
    ]
    whole = Leak("five", 1.0, 1.0)
    assert leaks(rows, items) == [(0, whole), (2, whole)]


def test_shorter_items_leak_only_as_the_whole_user_text():
    rows = [chat(0, "Is it fever?", "yes"), chat(1, "Is it fever or not?", "yes"), chat(2, "yes")]
    items = [("q", "is it fever"), ("e", ""), ("p", "?!"), ("two", "fever or")]
    assert found(rows, items) == [(0, "q")]


def test_boilerplate_alone_is_no_leak():
    form = line(*range(40))
    items = [
        (f"i{k}", f"{form} one{k} two{k} three{k} four{k}") for k in range(MAX_SHARING_TEXTS + 1)
    ]
    rows = [chat(0, form), chat(1, f"{form} one3 two3 three3 x")]
    # The form is 38 of each item's 42 3-grams, and in 11 items. Of the other 4, which are too few
    # to tell an item, row 1 has 3.
    assert found(rows, items) == []
    assert found([chat(2, f"see: {items[3][1]}!")], items) == [(2, "i3")]
    assert found(rows, items[:-1]) == [(row, f"i{k}") for row in (0, 1) for k in range(10)]


def test_distinctive_ngrams_decide_between_items_of_one_form():
    form = line(*range(40))
    items = [(f"i{k}", f"{form} {line(*range(100 * k, 100 * k + 8))}") for k in range(1, 13)]
    # Of item 3's 8 distinctive 3-grams the row has the first 5, of the others' none.
    row = chat(0, f"{form} {line(*range(300, 305))}")
    assert [(leak.item, leak.similarity) for _, leak in leaks([row], items)] == [("i3", 5 / 8)]


def test_an_item_that_is_boilerplate_only_leaks_as_a_whole():
    form = line(*range(40))
    items = [("form", form), *((f"i{k}", f"{form} end{k}") for k in range(MAX_SHARING_TEXTS))]
    rows = [chat(0, form), chat(1, line(*range(39)))]
    assert found(rows, items) == [(0, "form")]


def test_equal_items_are_all_named_and_are_no_boilerplate():
    item = line(*range(20))
    items = [(f"i{k}", item.upper()) for k in range(30)]
    assert leaks([chat(0, item)], items) == [(0, Leak(f"i{k}", 1.0, 1.0)) for k in range(30)]


def test_nothing_to_compare():
    assert leaks([], [("i", "a b c d e f")]) == []
    assert leaks([chat(0, "a b c d e f")], []) == []
    assert leaks([chat(0, "")], [("i", "a b c d e f"), ("s", "a")]) == []


@pytest.mark.parametrize("edit", ["none", "every tenth word", "ends cut"])
def test_planted_leaks_are_found_exactly(edit):
    rng = random.Random(0)
    vocabulary = [f"v{k}" for k in range(3000)]
    items = [(str(k), " ".join(rng.choices(vocabulary, k=rng.randint(13, 60)))) for k in range(400)]
    rows = [chat(k, " ".join(rng.choices(vocabulary, k=80))) for k in range(2000)]
    leaked = rng.sample(range(400), 37)
    for row, item in enumerate(leaked, 2000):
        copy = items[item][1].split()
        if edit == "every tenth word":
            copy = other_words(copy, rng)
        if edit == "ends cut":
            copy = copy[len(copy) // 5 : -len(copy) // 5]
        rows.append(chat(row, f"please help: {' '.join(copy)} thanks"))
    rows = rng.sample(rows, len(rows))
    planted = {(row, str(item)) for row, item in enumerate(leaked, 2000)}
    assert sorted(found(rows, items)) == sorted(planted)


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=24).map(" ".join), max_size=6),
    st.lists(st.lists(st.sampled_from("abc"), max_size=24).map(" ".join), max_size=6),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([0.3, 0.8, 1.0]),
)
@settings(deadline=None, max_examples=30)
def test_measures_agree_with_sets_of_words(prompts, texts, min_overlap, min_similarity):
    """Up to 10 different items nothing is boilerplate, and the definition is a few lines."""

    def grams(text, n):
        split = words(text)
        return {tuple(split[k : k + n]) for k in range(len(split) - n + 1)}

    def expected(prompt, text):
        size = len(words(text))
        if size < 5:
            return (1.0, 1.0) if size and words(prompt) == words(text) else None
        if size < 13 or len(grams(text, 3)) < 5:
            return (1.0, 1.0) if tuple(words(text)) in grams(prompt, size) else None
        overlap, similarity = (
            len(grams(text, n) & grams(prompt, n)) / len(grams(text, n)) for n in (13, 3)
        )
        if similarity >= min_similarity or min(overlap, similarity) >= min_overlap:
            return overlap, similarity
        return None

    rows = [chat(i, prompt) for i, prompt in enumerate(prompts)]
    items = [(str(i), text) for i, text in enumerate(texts)]
    for (row, prompt), (item, text) in ((r, i) for r in enumerate(prompts) for i in items):
        measured = [
            (leak.overlap, leak.similarity)
            for line, leak in leaks(rows, items, min_overlap, min_similarity)
            if (line, leak.item) == (row, item)
        ]
        wanted = expected(prompt, text)
        assert measured == ([] if wanted is None else [pytest.approx(wanted)])


def gsm8k(shared, name):
    lines = (shared / "data" / "gsm8k" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(text) for text in lines]


def items_of(benchmark):
    return [(str(k), item["question"]) for k, item in enumerate(benchmark)]


def other_numbers(text, rng):
    return "".join(rng.choice("123456789") if c.isdigit() else c for c in text)


@pytest.fixture(scope="module")
def medquad(shared):
    with gzip.open(shared / "data" / "medquad.jsonl.gz", "rt", encoding="utf-8") as file:
        return [
            chat(row, item["question"], item["answer"])
            for row, item in enumerate(map(json.loads, islice(file, 4000)))
        ]


@pytest.mark.parametrize(
    ("edit", "num_found"),
    [
        (lambda text, _: text, 60),
        (lambda text, rng: " ".join(other_words(text.split(), rng)), 60),
        (other_numbers, 59),
    ],
    ids=["verbatim", "every tenth word", "all numbers"],
)
def test_benchmark_items_hidden_in_other_data_are_found(shared, medquad, edit, num_found):
    benchmark = gsm8k(shared, "test")
    rng = random.Random(0)
    hidden = rng.sample(range(len(benchmark)), 60)
    rows = medquad + [
        chat(4000 + k, edit(benchmark[k]["question"], rng), benchmark[k]["answer"]) for k in hidden
    ]
    judged = find_contaminated(rows, items_of(benchmark), 0.5, 0.5)
    flagged = {record.row - 4000: leaks for record, leaks in judged if leaks}
    assert set(flagged) <= set(hidden)
    assert len(flagged) == num_found
    closest = {row: max(leaks, key=lambda leak: leak.similarity) for row, leaks in flagged.items()}
    assert {row: int(leak.item) for row, leak in closest.items()} == {k: k for k in flagged}


def test_train_rows_hidden_in_other_data_leak_only_the_twins_of_test_items(shared, medquad):
    """Four train rows are a test item with other names, things and numbers; no other row is."""
    train = gsm8k(shared, "train")
    rows = medquad + [
        chat(4000 + k, item["question"], item["answer"]) for k, item in enumerate(train)
    ]
    pairs = found(rows, items_of(gsm8k(shared, "test")))
    assert [(row - 4000, item) for row, item in pairs] == [
        (20, "632"),
        (1314, "602"),
        (3726, "824"),
        (5162, "602"),
    ]
