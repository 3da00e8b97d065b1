"""Instruction pairs with planted near-duplicates: made-up words with natural frequencies."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from sft_core.records import Record

PLANTED_RATE = 0.22
_NUM_WORDS = 30_000
_CHUNK_ROWS = 10_000
_OPENINGS = (
    "Explain in plain words what the following note says and what should be done next:",
    "Answer the question below as a careful expert would and give your reasons.",
    "Summarise the passage in a few sentences and keep every number that it mentions.",
    "Rewrite the text below so that somebody without training in the field understands it.",
    "List the steps that follow from this description, in the order in which they are taken.",
)
_CLOSINGS = (
    "If the problem lasts longer than a week, ask somebody who knows the case in person.",
    "This is general information and does not replace the advice of a specialist.",
    "Let me know if you would like more detail on any of these points.",
    "",
)


def corpus(num_rows: int, seed: int = 0) -> Iterator[Record]:
    """Prompt and completion of 15 to 600 words; 22 % are edits of another row.

    The first rows are originals. Each of the others edits an original of its own, by words
    changed, put in or left out, to a Jaccard similarity of about 0.65 to 0.98. Which rows really
    are near-duplicates is for brute force to say.
    """
    num_planted = int(num_rows * PLANTED_RATE)
    num_originals = num_rows - num_planted
    rng = random.Random(seed)
    vocabulary = _vocabulary(rng)
    # Which originals get an edit is drawn beforehand; only those stay in memory.
    edited = dict.fromkeys(rng.sample(range(num_originals), num_planted), "")
    for row, (prompt, completion) in enumerate(_originals(num_originals, vocabulary, seed)):
        if row in edited:
            edited[row] = f"{prompt}\n{completion}"
        yield _pair(row, prompt, completion)
    for row, text in enumerate(edited.values(), start=num_originals):
        prompt, _, completion = _edit(text, vocabulary, rng).partition("\n")
        yield _pair(row, prompt, completion)


def _pair(row: int, prompt: str, completion: str) -> Record:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return Record(row, str(row), messages)


def _vocabulary(rng: random.Random) -> list[str]:
    """Words of one to four syllables, the frequent ones short."""
    syllables = [c + v for c in "bcdfghklmnprstvw" for v in ("a", "e", "i", "o", "u", "an", "er")]
    words: dict[str, None] = {}
    while len(words) < _NUM_WORDS:
        size = 1 + (len(words) > 50) + (len(words) > 1000) + rng.randrange(2)
        words["".join(rng.choices(syllables, k=size))] = None
    return list(words)


def _originals(num_rows: int, vocabulary: list[str], seed: int) -> Iterator[tuple[str, str]]:
    """Words drawn by Zipf's law, put into sentences; openings and closings recur."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / (np.arange(_NUM_WORDS) + 2.7)
    shares = np.cumsum(frequency / frequency.sum())
    forms = np.array([*vocabulary, *(f"{word}." for word in vocabulary)], object)
    for start in range(0, num_rows, _CHUNK_ROWS):
        count = min(_CHUNK_ROWS, num_rows - start)
        sizes = np.clip(rng.lognormal(4.4, 0.6, count), 15, 600).astype(np.int64)
        drawn = np.searchsorted(shares, rng.random(sizes.sum()) * shares[-1])
        drawn[rng.random(drawn.size) < 1 / 14] += _NUM_WORDS
        for ids, opening, closing in zip(
            np.split(forms[drawn], np.cumsum(sizes)[:-1]),
            rng.integers(0, len(_OPENINGS), count),
            rng.integers(0, len(_CLOSINGS), count),
            strict=True,
        ):
            border = ids.size // 4
            yield (
                f"{_OPENINGS[opening]} {' '.join(ids[:border])}",
                f"{' '.join(ids[border:])}. {_CLOSINGS[closing]}".rstrip(),
            )


def _edit(text: str, vocabulary: list[str], rng: random.Random) -> str:
    """One edit in the middle of n 5-grams changes 5 of them: Jaccard (n - 5k) / (n + 5k)."""
    prompt, _, completion = text.partition("\n")
    words = completion.split(" ")
    num_grams = len(words) + prompt.count(" ") - 3
    similarity = rng.uniform(0.65, 0.98)
    num_edits = max(1, round(num_grams * (1 - similarity) / (1 + similarity) / 5))
    for _ in range(num_edits):
        place = rng.randrange(len(words))
        kind = rng.randrange(3)
        if kind == 0:
            words[place] = rng.choice(vocabulary)
        elif kind == 1:
            words.insert(place, rng.choice(vocabulary))
        elif len(words) > 1:
            del words[place]
    return f"{prompt}\n{' '.join(words)}"
