import gzip
import json
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.near_duplicates import (
    MAX_BUCKET,
    NearDuplicates,
    band_rows,
    catch_probability,
    find_near_duplicates,
)
from data_checks.text import words
from sft_core.records import Record

SHARED = Path(__file__).parents[3] / "shared"


def chat(row, prompt, completion=""):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return Record(row, str(row), messages)


def gram_set(text):
    tokens = words(text)
    if len(tokens) < 5:
        return {tuple(tokens)} if tokens else set()
    return {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}


def brute_force(texts, min_similarity):
    """All pairs and their similarity, through an inverted index of exact grams."""
    sets = [gram_set(text) for text in texts]
    owners = defaultdict(list)
    pairs = {}
    for i, own in enumerate(sets):
        for j, shared in Counter(j for gram in own for j in owners[gram]).items():
            similarity = shared / (len(own) + len(sets[j]) - shared)
            if similarity >= min_similarity:
                pairs[j, i] = similarity
        for gram in own:
            owners[gram].append(i)
    return pairs


def planted_texts(num_texts, seed, edits=5):
    """Random texts, every third of them an earlier one with a few words replaced."""
    rng = random.Random(seed)
    vocabulary = [f"word{k}" for k in range(5000)]
    texts = []
    for _ in range(num_texts):
        if texts and rng.random() < 0.35:
            tokens = rng.choice(texts).split()
            for _ in range(rng.randint(1, edits)):
                tokens[rng.randrange(len(tokens))] = rng.choice(vocabulary)
        else:
            tokens = rng.choices(vocabulary, k=rng.randint(20, 200))
        texts.append(" ".join(tokens))
    return texts


def test_hand_computed_similarity():
    # 14 words give 10 grams. Changing the last word changes 1 of them: 9 shared of 9 + 1 + 1.
    first = "a b c d e f g h i j k l m n"
    second = "A, b c d e f g h i j k l m: Z"
    found = find_near_duplicates([chat(3, first), chat(7, second)], 0.8)
    assert found == NearDuplicates(((3, 7, 9 / 11),), {7: 3})
    # Changing the word in the middle changes 5 grams: 5 shared of 5 + 5 + 5.
    third = "a b c d e f Z h i j k l m n"
    assert find_near_duplicates([chat(0, first), chat(1, third)], 0.5).pairs == ()


def test_short_texts_are_compared_as_a_whole():
    rows = [chat(0, "fever and chills"), chat(1, "Fever, and chills!"), chat(2, "fever or chills")]
    assert find_near_duplicates(rows, 0.5) == NearDuplicates(((0, 1, 1.0),), {1: 0})


def test_rows_without_words_are_no_duplicates():
    assert find_near_duplicates([chat(0, "?!"), chat(1, "?!")], 0.8) == NearDuplicates((), {})
    assert find_near_duplicates([], 0.8) == NearDuplicates((), {})


def test_system_prompts_do_not_count():
    system = {"role": "system", "content": "you are a careful assistant of the clinic " * 20}
    rows = [chat(0, "my knee hurts when I walk"), chat(1, "is this mole something to worry about")]
    rows = [replace(r, messages=[system, *r.messages]) for r in rows]
    assert find_near_duplicates(rows, 0.5).pairs == ()


@pytest.mark.parametrize("min_similarity", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_least_similar_pairs_are_caught_with_the_stated_probability(min_similarity):
    assert catch_probability(min_similarity, min_similarity) >= 0.99
    assert 1 <= band_rows(min_similarity) <= 8


def test_probabilities_of_the_docstring():
    assert band_rows(0.8) == 7
    assert catch_probability(0.8, 0.8) == pytest.approx(0.9965, abs=1e-4)
    assert 1 - catch_probability(0.9, 0.8) == pytest.approx(1.65e-7, rel=0.01)


def test_planted_edits_against_brute_force():
    texts = planted_texts(4000, seed=1)
    truth = brute_force(texts, 0.8)
    found = find_near_duplicates((chat(i, text) for i, text in enumerate(texts)), 0.8)
    similarity = {(low, high): value for low, high, value in found.pairs}
    assert len(truth) > 400
    assert len(truth.keys() & similarity.keys()) >= 0.99 * len(truth)
    assert all(truth[pair] == value for pair, value in similarity.items())  # precision 1


def test_a_cluster_is_named_by_its_lowest_row_and_may_be_a_chain():
    texts = [" ".join(f"w{k}" for k in range(start, start + 60)) for start in (0, 2, 4, 6)]
    rows = [chat(row, text) for row, text in zip((9, 4, 6, 12), texts, strict=True)]
    found = find_near_duplicates(rows, 0.9)
    # Neighbours share 54 of 56 grams: 54 / 58 = 0.931. Every second: 52 / 60 = 0.867.
    assert {(low, high) for low, high, _ in found.pairs} == {(4, 9), (4, 6), (6, 12)}
    assert found.clusters == {6: 4, 9: 4, 12: 4}
    assert found.closest()[12] == (6, pytest.approx(54 / 58))


def test_crowded_buckets_stay_one_cluster_at_linear_cost():
    form = "the patient was seen in the clinic today and sent home in good state with advice " * 4
    count = 40 * MAX_BUCKET
    rows = [chat(row, f"{form} ticket {row}") for row in range(count)]
    found = find_near_duplicates(rows, 0.8)
    assert found.clusters == dict.fromkeys(range(1, count), 0)
    assert len(found.pairs) < count * MAX_BUCKET


texts_of_few_words = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12).map(" ".join), max_size=12
)


@given(texts_of_few_words, st.randoms(use_true_random=False), st.sampled_from([0.5, 0.8, 1.0]))
@settings(deadline=None, max_examples=30)
def test_order_does_not_matter(texts, rng, min_similarity):
    rows = [chat(i, text) for i, text in enumerate(texts)]
    shuffled = rng.sample(rows, len(rows))
    assert find_near_duplicates(rows, min_similarity) == find_near_duplicates(
        shuffled, min_similarity
    )


@given(texts_of_few_words)
@settings(deadline=None, max_examples=30)
def test_what_remains_has_no_pairs(texts):
    rows = [chat(i, text) for i, text in enumerate(texts)]
    found = find_near_duplicates(rows, 0.8)
    kept = [r for r in rows if r.row not in found.clusters]
    assert find_near_duplicates(kept, 0.8) == NearDuplicates((), {})
    truth = brute_force(texts, 0.8)
    assert all(truth[low, high] == similarity for low, high, similarity in found.pairs)


def test_planted_near_duplicates_in_real_text():
    path = SHARED / "data" / "medquad.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        items = [json.loads(next(file)) for _ in range(600)]
    texts = [f"{item['question']}\n{item['answer']}" for item in items]
    rng = random.Random(0)
    for original in rng.sample(range(600), 60):
        tokens = texts[original].split(" ")
        tokens[rng.randrange(len(tokens))] = "planted"
        texts.append(" ".join(tokens))
    truth = brute_force(texts, 0.8)
    pairs = find_near_duplicates([chat(i, text) for i, text in enumerate(texts)], 0.8).pairs
    found = {(low, high) for low, high, _ in pairs}
    assert found <= truth.keys()
    assert len(found) >= 0.99 * len(truth)


def test_many_copies_stay_one_cluster_and_are_each_paired_with_the_lowest():
    rows = [chat(row, "one two three four five six") for row in range(200)]
    found = find_near_duplicates(rows, 0.8)
    assert found.pairs == tuple((0, row, 1.0) for row in range(1, 200))
    few = find_near_duplicates(rows[:4], 0.8)
    assert [pair[:2] for pair in few.pairs] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
