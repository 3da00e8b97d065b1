import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.contamination import MAX_SHARING_ITEMS, Leak, find_contaminated
from sft_core.records import Record

SHARED = Path(__file__).parents[3] / "shared"


def chat(row, prompt, completion=""):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return Record(row, str(row), messages)


def line(*numbers):
    return " ".join(f"w{k}" for k in numbers)


def test_hand_computed_overlap():
    # 20 words give 8 13-grams; a row with the first 16 words holds 4 of them.
    item = line(*range(20))
    row = chat(5, "before " + line(*range(16)) + " after")
    assert find_contaminated([row], [("i", item)], 0.5) == [Leak(5, "i", 0.5)]
    assert find_contaminated([row], [("i", item)], 0.51) == []


def test_overlap_is_of_one_row_and_runs_over_prompt_and_completion():
    item = line(*range(26))
    halves = [chat(0, line(*range(13))), chat(1, line(*range(13, 26)))]
    assert find_contaminated(halves, [("i", item)], 0.5) == []
    whole = chat(2, line(*range(13)), line(*range(13, 26)))
    assert find_contaminated([whole], [("i", item)], 1.0) == [Leak(2, "i", 1.0)]


def test_repeated_ngrams_count_once():
    item = line(*range(13), *range(13))  # 14 grams, of which the first and the last are equal
    row = chat(0, line(*range(13)))
    assert find_contaminated([row], [("i", item)], 0.01) == [Leak(0, "i", 1 / 13)]


def test_items_of_five_to_twelve_words_leak_as_a_whole():
    items = [("five", "one two three four five"), ("other", "one two three four six")]
    rows = [
        chat(0, "He said: One, two; three four FIVE!"),
        chat(1, "one two three four"),
        chat(2, "one two three", "four five"),
        chat(3, "one two three x four five"),
    ]
    assert find_contaminated(rows, items, 0.5) == [Leak(0, "five", 1.0), Leak(2, "five", 1.0)]


def test_shorter_items_leak_only_as_the_whole_user_text():
    rows = [chat(0, "Is it fever?", "yes"), chat(1, "Is it fever or not?", "yes"), chat(2, "yes")]
    found = find_contaminated(rows, [("q", "is it fever"), ("e", ""), ("p", "?!")], 0.5)
    assert found == [Leak(0, "q", 1.0)]


def test_boilerplate_alone_is_no_leak():
    form = line(*range(40))
    items = [(f"i{k}", f"{form} end{k} of{k} item{k}") for k in range(MAX_SHARING_ITEMS + 1)]
    rows = [chat(0, form), chat(1, f"{form} end3 of3 item3")]
    # The form is 28 of each item's 31 grams, and in 11 items.
    assert find_contaminated(rows, items, 0.5) == [Leak(1, "i3", 1.0)]
    assert len(find_contaminated(rows, items[:-1], 0.5)) == 2 * len(items[:-1])


def test_an_item_that_is_boilerplate_only_leaks_as_a_whole():
    form = line(*range(40))
    items = [("short", form), *((f"i{k}", f"{form} end{k}") for k in range(MAX_SHARING_ITEMS))]
    rows = [chat(0, form), chat(1, line(*range(39)))]
    assert find_contaminated(rows, items, 0.5) == [Leak(0, "short", 1.0)]


def test_equal_items_are_all_named_and_are_no_boilerplate():
    item = line(*range(20))
    items = [(f"i{k}", item.upper()) for k in range(30)]
    found = find_contaminated([chat(0, item)], items, 0.5)
    assert found == [Leak(0, f"i{k}", 1.0) for k in range(30)]


def test_nothing_to_compare():
    assert find_contaminated([], [("i", "a b c d e f")], 0.5) == []
    assert find_contaminated([chat(0, "a b c d e f")], [], 0.5) == []
    assert find_contaminated([chat(0, "")], [("i", "a b c d e f"), ("s", "a")], 0.5) == []


def test_planted_leaks_are_found_exactly():
    rng = random.Random(0)
    vocabulary = [f"v{k}" for k in range(3000)]
    items = [(str(k), " ".join(rng.choices(vocabulary, k=rng.randint(6, 60)))) for k in range(400)]
    rows = [chat(k, " ".join(rng.choices(vocabulary, k=80))) for k in range(2000)]
    leaked = rng.sample(range(400), 37)
    for row, item in enumerate(leaked, 2000):
        rows.append(chat(row, f"please help: {items[item][1]} thanks"))
    found = find_contaminated(rng.sample(rows, len(rows)), items, 0.5)
    assert {(leak.row, leak.item) for leak in found} == {
        (row, str(item)) for row, item in enumerate(leaked, 2000)
    }
    assert len(found) == 37
    assert all(leak.overlap == 1.0 for leak in found)


@given(
    st.lists(st.lists(st.sampled_from("ab"), max_size=20).map(" ".join), max_size=6),
    st.lists(st.lists(st.sampled_from("ab"), max_size=20).map(" ".join), max_size=6),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=30)
def test_order_does_not_matter_and_each_row_is_judged_alone(prompts, texts, rng):
    rows = [chat(i, prompt) for i, prompt in enumerate(prompts)]
    items = [(str(i), text) for i, text in enumerate(texts)]
    found = find_contaminated(rows, items, 0.4)
    shuffled = find_contaminated(rng.sample(rows, len(rows)), rng.sample(items, len(items)), 0.4)
    assert set(found) == set(shuffled)
    assert len(set(found)) == len(found) == len(shuffled)
    alone = [leak for row in rows for leak in find_contaminated([row], items, 0.4)]
    assert alone == found
    clean = [r for r in rows if r.row not in {leak.row for leak in found}]
    assert find_contaminated(clean, items, 0.4) == []


def _gsm8k(name):
    path = SHARED / "data" / "gsm8k" / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"gsm8k/{path.name} is not there")
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def test_test_items_hidden_in_other_data_are_found():
    benchmark = _gsm8k("test")
    with gzip.open(SHARED / "data" / "medquad.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [
            chat(row, item["question"], item["answer"])
            for row, item in zip(range(4000), map(json.loads, file), strict=False)
        ]
    hidden = random.Random(0).sample(range(len(benchmark)), 60)
    rows += [
        chat(4000 + item, benchmark[item]["question"], benchmark[item]["answer"]) for item in hidden
    ]
    items = [(str(k), item["question"]) for k, item in enumerate(benchmark)]
    found = find_contaminated(rows, items, 0.5)
    assert [(leak.row - 4000, leak.item) for leak in found] == [(k, str(k)) for k in hidden]


def test_gsm8k_train_and_test_barely_overlap():
    train, benchmark = _gsm8k("train"), _gsm8k("test")
    rows = [chat(k, item["question"], item["answer"]) for k, item in enumerate(train)]
    items = [(str(k), item["question"]) for k, item in enumerate(benchmark)]
    # Two train rows ask test item 602 with another vehicle and other numbers.
    assert [(leak.row, leak.item) for leak in find_contaminated(rows, items, 0.5)] == [
        (1314, "602"),
        (5162, "602"),
    ]
