import gzip
import json
import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.overlap.near_duplicates import (
    MAX_BUCKET,
    Member,
    band_rows,
    catch_probability,
    find_near_duplicates,
)
from data_checks.overlap.splitting import split_of
from data_checks.text import words
from sft_core.config import SplitConfig
from sft_core.records import Record
from tests.conftest import SHARED


def chat(row, prompt, completion=""):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return Record(row, str(row), messages)


def pairs_of(found):
    return {(pair["row"], pair["other"]): pair["jaccard"] for pair in found.pairs.to_pylist()}


def clusters_of(found):
    """Sets of rows, whatever their names."""
    clusters = defaultdict(set)
    for row, member in found.members.items():
        clusters[member.first].add(row)
    return {frozenset(rows) for rows in clusters.values()}


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
    assert found.pairs.to_pylist() == [{"row": 3, "other": 7, "jaccard": 9 / 11}]
    assert found.members == {3: Member(3, 3, 3, 1.0), 7: Member(3, 3, 3, 9 / 11)}
    # Changing the word in the middle changes 5 grams: 5 shared of 5 + 5 + 5.
    third = "a b c d e f Z h i j k l m n"
    assert not find_near_duplicates([chat(0, first), chat(1, third)], 0.5).members


def test_short_texts_are_compared_as_a_whole():
    rows = [chat(0, "fever and chills"), chat(1, "Fever, and chills!"), chat(2, "fever or chills")]
    assert pairs_of(find_near_duplicates(rows, 0.5)) == {(0, 1): 1.0}


def test_rows_without_words_are_no_duplicates():
    for rows in ([chat(0, "?!"), chat(1, "?!")], []):
        found = find_near_duplicates(rows, 0.8)
        assert (found.pairs.num_rows, found.members) == (0, {})


def test_system_prompts_do_not_count():
    system = {"role": "system", "content": "you are a careful assistant of the clinic " * 20}
    rows = [chat(0, "my knee hurts when I walk"), chat(1, "is this mole something to worry about")]
    rows = [replace(r, messages=[system, *r.messages]) for r in rows]
    assert not find_near_duplicates(rows, 0.5).members


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
    similarity = pairs_of(found)
    assert len(truth) > 400
    assert len(truth.keys() & similarity.keys()) >= 0.99 * len(truth)
    assert all(truth[pair] == value for pair, value in similarity.items())  # precision 1


def windows(*starts, size=60):
    """Texts of 60 running words: two that are d words apart share 56 - d of 56 + d grams."""
    return [" ".join(f"w{k}" for k in range(start, start + size)) for start in starts]


def test_a_cluster_is_named_by_its_lowest_row_and_may_be_a_chain():
    rows = [chat(row, text) for row, text in zip((9, 4, 6, 12), windows(0, 2, 4, 6), strict=True)]
    found = find_near_duplicates(rows, 0.9)
    # Neighbours share 54 of 56 grams: 54 / 58 = 0.931. Every second: 52 / 60 = 0.867.
    assert set(pairs_of(found)) == {(4, 9), (4, 6), (6, 12)}
    assert found.members == {
        4: Member(4, 4, 4, 1.0),
        6: Member(4, 4, 4, 54 / 58),
        9: Member(4, 4, 4, 54 / 58),
        12: Member(4, 4, 6, 54 / 58),  # not similar to row 4 itself
    }


def test_the_longest_row_stays_and_the_earliest_names_the_cluster():
    short, *rest = windows(0, 2, 4)
    longest = windows(2, size=64)[0]
    rows = [chat(row, text) for row, text in enumerate((short, *rest, longest, longest))]
    found = find_near_duplicates(rows, 0.9, "longest")
    # Of two equally long rows, 3 and 4, the earlier one stays. It holds all 56 grams of row 1 and
    # of row 2 among its 60 (0.933); with row 0 it shares 54 of 62 (0.871), so row 0 goes via 1.
    assert {row: member.kept for row, member in found.members.items()} == dict.fromkeys(range(5), 3)
    assert {member.first for member in found.members.values()} == {0}
    assert found.members[0] == Member(0, 3, 1, 54 / 58)
    assert found.members[1] == Member(0, 3, 3, 56 / 60)


def test_a_longer_row_that_is_appended_moves_no_split():
    config = SplitConfig()
    for seed in range(30):
        texts = [" ".join(f"s{seed}w{k}" for k in range(size)) for size in (60, 61, 63)]
        rows = [chat(10 * seed + k, text) for k, text in enumerate(texts)]
        before = find_near_duplicates(rows[:2], 0.9, "longest").members
        after = find_near_duplicates(rows, 0.9, "longest").members
        assert {m.kept for m in after.values()} != {m.kept for m in before.values()}
        splits = {split_of(str(m.first), config) for m in [*before.values(), *after.values()]}
        assert len(splits) == 1


def test_crowded_buckets_stay_one_cluster_at_linear_cost():
    form = "the patient was seen in the clinic today and sent home in good state with advice " * 4
    count = 40 * MAX_BUCKET
    rows = [chat(row, f"{form} ticket {row}") for row in range(count)]
    found = find_near_duplicates(rows, 0.8)
    assert clusters_of(found) == {frozenset(range(count))}
    assert found.pairs.num_rows < count * MAX_BUCKET


texts_of_few_words = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12).map(" ".join), max_size=12
)


@given(
    texts_of_few_words,
    st.randoms(use_true_random=False),
    st.sampled_from([0.5, 0.8, 1.0]),
    st.sampled_from(["earliest", "longest"]),
)
@settings(deadline=None, max_examples=50)
def test_order_does_not_matter(texts, rng, min_similarity, kept_row):
    rows = [chat(i, text) for i, text in enumerate(texts)]
    found = find_near_duplicates(rows, min_similarity, kept_row)
    assert found == find_near_duplicates(rng.sample(rows, len(rows)), min_similarity, kept_row)


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20)
def test_new_row_numbers_change_neither_pairs_nor_clusters(seed, rng):
    texts = planted_texts(60, seed)
    numbers = rng.sample(range(100), len(texts))
    found = find_near_duplicates([chat(i, text) for i, text in enumerate(texts)], 0.8)
    other = find_near_duplicates([chat(i, t) for i, t in zip(numbers, texts, strict=True)], 0.8)
    assert pairs_of(other) == {
        tuple(sorted((numbers[low], numbers[high]))): value
        for (low, high), value in pairs_of(found).items()
    }
    renamed = {frozenset(numbers[row] for row in rows) for rows in clusters_of(found)}
    assert clusters_of(other) == renamed


@given(texts_of_few_words, st.sampled_from(["earliest", "longest"]))
@settings(deadline=None, max_examples=50)
def test_what_remains_has_no_pairs(texts, kept_row):
    rows = [chat(i, text) for i, text in enumerate(texts)]
    found = find_near_duplicates(rows, 0.8, kept_row)
    gone = {row for row, member in found.members.items() if member.kept != row}
    again = find_near_duplicates([r for r in rows if r.row not in gone], 0.8, kept_row)
    assert (again.pairs.num_rows, again.members) == (0, {})


@given(texts_of_few_words | st.integers(0, 10_000).map(lambda seed: planted_texts(40, seed)))
@settings(deadline=None, max_examples=50)
def test_pairs_are_true_and_lead_to_the_kept_row_and_no_pair_straddles(texts):
    rows = [chat(i, text) for i, text in enumerate(texts)]
    found = find_near_duplicates(rows, 0.8, "longest")
    pairs = pairs_of(found)
    truth = brute_force(texts, 0.8)
    assert all(truth[pair] == similarity for pair, similarity in pairs.items())
    config = SplitConfig(test_rate=0.3, validation_rate=0.3)
    for low, high in pairs:
        assert found.members[low].first == found.members[high].first
        ends = (split_of(rows[found.members[row].first].row_id, config) for row in (low, high))
        assert len(set(ends)) == 1
    for row, member in found.members.items():
        if row == member.kept:
            assert member.via == row
            continue
        assert member.jaccard == pairs[tuple(sorted((row, member.via)))]
        for _ in texts:
            row = found.members[row].via
        assert row == member.kept


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
    found = pairs_of(find_near_duplicates([chat(i, text) for i, text in enumerate(texts)], 0.8))
    assert found.keys() <= truth.keys()
    assert len(found) >= 0.99 * len(truth)


def test_many_copies_stay_one_cluster_and_are_each_paired_with_the_lowest():
    rows = [chat(row, "one two three four five six") for row in range(200)]
    found = find_near_duplicates(rows, 0.8)
    assert pairs_of(found) == {(0, row): 1.0 for row in range(1, 200)}
    few = find_near_duplicates(rows[:4], 0.8)
    assert list(pairs_of(few)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
