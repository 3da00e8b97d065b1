import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks import text as text_module
from data_checks.text import (
    batches,
    hash_words,
    ngram_hashes,
    normalise,
    owners,
    text_hashes,
    words,
)


def test_normal_form_folds_case_width_and_space():
    assert normalise("  Die STRASSE\t\n ＡＢＣ\u00a0ﬁne ") == "die strasse abc fine"
    assert normalise("straße") == "strasse"
    assert normalise("zero\u200bwidth soft\u00adhyphen") == "zerowidth softhyphen"
    assert normalise("") == ""


def test_words_are_runs_of_letters_digits_and_marks():
    assert words("Don't pay $1.50, e-mail_me!") == ["don", "t", "pay", "1", "50", "e", "mail_me"]
    assert words("“Café” — naïve…") == ["café", "naïve"]
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert words("東京タワー abc") == ["東", "京", "タ", "ワ", "ー", "abc"]
    assert words("?!") == []


@given(st.text())
@settings(deadline=None)
def test_normalisation_is_idempotent(text):
    assert normalise(normalise(text)) == normalise(text)
    assert words(normalise(text)) == words(text)


@given(st.lists(st.text(alphabet="aB ,é\n東", max_size=30), max_size=6), st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_hashes_tell_words_and_ngrams_apart_exactly(texts, n):
    hashes, ends = hash_words(texts)
    tokens = [word for text in texts for word in words(text)]
    assert ends.tolist() == np.cumsum([len(words(text)) for text in texts]).tolist()
    _same_partition(hashes.tolist(), tokens)
    grams, gram_ends = ngram_hashes(hashes, ends, n)
    expected = [_grams(words(text), n) for text in texts]
    assert gram_ends.tolist() == np.cumsum([len(g) for g in expected]).tolist()
    _same_partition(grams.tolist(), [gram for row in expected for gram in row])


def _grams(tokens, n):
    if len(tokens) < n:
        return [tuple(tokens)] if tokens else []
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def _same_partition(hashes, values):
    assert len(hashes) == len(values)
    assert len(set(hashes)) == len(set(values)) == len(set(zip(hashes, values, strict=True)))


def test_whole_text_hash_is_the_ngram_hash_of_its_length():
    hashes, ends = hash_words(["one two three", "", "zero one two three four"])
    whole = text_hashes(hashes, ends)
    grams, gram_ends = ngram_hashes(hashes, ends, 3)
    assert whole[1] == 0
    assert whole[0] in grams[gram_ends[1] :]
    assert owners(gram_ends).tolist() == [0, 2, 2, 2]


def test_no_texts_give_no_hashes():
    hashes, ends = hash_words([])
    assert hashes.size == ends.size == 0
    assert text_hashes(hashes, ends).size == 0


def test_batches_keep_order_and_bound_memory(monkeypatch):
    monkeypatch.setattr(text_module, "_BATCH_CHARS", 200)
    groups = list(batches((i, "x" * 40) for i in range(7)))
    assert [key for keys, _ in groups for key in keys] == list(range(7))
    assert [len(keys) for keys, _ in groups] == [2, 2, 2, 1]


def test_kernels_compile_where_no_cache_folder_can_be_written(monkeypatch):
    def refuse(**options):
        def decorate(function):
            raise RuntimeError("cannot cache function: no locator available")

        return decorate if options else lambda function: function

    real = text_module.numba.njit
    monkeypatch.setattr(
        text_module.numba, "njit", lambda *f, **options: refuse(**options) if options else real(*f)
    )

    def double(x):
        return 2 * x

    assert text_module.compiled(double)(21) == 42


@pytest.mark.parametrize("text", ["\ud800 lone surrogate", "\x00 nul", "e\u0301" * 3])
def test_odd_characters_are_hashed(text):
    hashes, ends = hash_words([text, text])
    assert ends[1] == 2 * ends[0]
    assert hashes[: ends[0]].tolist() == hashes[ends[0] :].tolist()
