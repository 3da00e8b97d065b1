import random
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_checks.bias.cased_words import cased_words, folded
from data_checks.bias.word_counts import WordCounts
from data_checks.text import words


@given(st.text("aZé É\u00adßΣ漢\u201c.\n_9e\u0301ﬁ", max_size=30))
@example("ß\u0301")
@example("Z\u00ad\u0301")
def test_folded_words_are_the_words(text):
    assert folded(cased_words(text)).decode().split() == words(text)


def counted(texts, kinds, batch=3, **limits):
    counts = WordCounts(2, **limits)
    for start in range(0, len(texts), batch):
        part = [cased_words(text) for text in texts[start : start + batch]]
        counts.add(part, kinds[start : start + batch])
    rows = zip(counts.words, counts.counts.tolist(), counts.lower_case_rate.tolist(), strict=True)
    return {word: (tuple(count), rate) for word, count, rate in rows}, counts.share_counted


def test_texts_are_counted_once_a_word_and_kind():
    texts = ["The cat saw the cat", "THE dog", "a Cat, 42nd x9 É été"]
    found, share = counted(texts, [[0], [0, 1], [1]])
    assert found == {
        "the": ((2, 1), 0.5),  # lower case in the first, not in the second
        "cat": ((1, 1), 0.5),
        "saw": ((1, 0), 1.0),
        "dog": ((1, 1), 1.0),
        "é": ((0, 1), 0.0),
        "été": ((0, 1), 1.0),
    }
    assert share == 1.0


def test_numbers_of_words_include_those_that_are_not_counted():
    counts = WordCounts(1)
    texts = ["one 2 three", "", "a " + "x" * 50]
    assert counts.add([cased_words(text) for text in texts], [[0]] * 3).tolist() == [3, 0, 2]
    assert sorted(counts.words) == ["one", "three"]


def test_a_full_table_keeps_a_share_of_words_with_exact_counts():
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(500)]
    texts = [" ".join(rng.choices(vocabulary, k=20)) for _ in range(200)]
    kinds = [[k % 2] for k in range(200)]
    whole = counted(texts, kinds)[0]
    part, share = counted(texts, kinds, max_words=100)
    assert share in (0.25, 0.125)
    assert 25 <= len(part) <= 100
    assert part.items() <= whole.items()
    order = rng.sample(range(200), 200)
    assert counted([texts[k] for k in order], [kinds[k] for k in order], 7, max_words=100) == (
        part,
        share,
    )


@given(st.lists(st.tuples(st.text("ab AB.", max_size=12), st.sampled_from([[0], [1], [0, 1]]))))
@settings(max_examples=50)
def test_counts_are_those_of_python(rows):
    expected = Counter(
        (word, kind)
        for text, kinds in rows
        for word in {w for w in words(text) if len(w) > 1}
        for kind in kinds
    )
    found = counted([text for text, _ in rows], [kinds for _, kinds in rows])[0]
    pairs = {(w, k): row[0][k] for w, row in found.items() for k in (0, 1) if row[0][k]}
    assert pairs == expected
