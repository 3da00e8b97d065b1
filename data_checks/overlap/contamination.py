"""Training rows that hold held-out items, word for word or with words changed.

`containment` measures how much of an item a row contains; which share is a leak is the config's.

Source: Brown et al. 2020, "Language models are few-shot learners", appendix C (13-grams; shorter
items as a whole).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from data_checks.overlap.containment import Containment
from data_checks.text import batches, hash_words, text_hashes
from sft_core.records import Record

MIN_CONTAINED_WORDS = 5
"""Shorter items leak only where they are the whole user text of a row."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out item that a training row holds, at least in part."""

    item: str
    overlap: float
    """Share of the item's distinct 13-grams found in the row, in [0, 1]; 1 for a whole item."""
    similarity: float
    """Share of its distinctive 3-grams found in the row, in (0, 1]; 1 for a whole item."""


def find_contaminated(
    train: Iterable[Record],
    held_out: Iterable[tuple[str, str]],
    min_overlap: float,
    min_similarity: float,
) -> Iterator[tuple[Record, list[Leak]]]:
    """Every row in order, with the items that its text (without system prompts) leaks.

    `held_out` gives the name and the text of each item; the leaks of a row stand in that order. An
    item leaks

    - of 13 words or more: where one row has at least `min_similarity` of its distinctive 3-grams,
      or at least `min_overlap` of its 13-grams and as large a share of the distinctive 3-grams;
    - of 5 to 12 words, or longer and made of boilerplate: where a row holds all its words in order;
    - of 1 to 4 words: where the user's turns of a row are just these words;
    - without words: never.

    An item of question and answer is found in a row that has only the question where the question
    makes up enough of it; give the question as an item of its own to find it with any answer.

    The items are indexed in memory (about 25 bytes a word, twice that while indexing); the rows
    stream.
    """
    items = _Items(held_out)
    index = Containment(items.words, items.ends, min(min_overlap, min_similarity))
    for records, texts in batches((record, record.text()) for record in train):
        leaks: list[list[tuple[int, float, float]]] = [[] for _ in records]
        for row, text, overlap, similarity in index.matches(*hash_words(texts)):
            if overlap >= min_overlap or similarity >= min_similarity:
                leaks[row].append((text, overlap, similarity))
        for row, text in items.asked(records):
            leaks[row].append((text, 1.0, 1.0))
        for record, found in zip(records, leaks, strict=True):
            named = [
                Leak(item, overlap, similarity)
                for text, overlap, similarity in sorted(found)
                for item in items.names[text]
            ]
            yield record, named


class _Items:
    """Held-out items; equal word sequences are one text, numbered by first appearance."""

    def __init__(self, held_out: Iterable[tuple[str, str]]) -> None:
        self.names: list[list[str]] = []
        self.short: dict[int, int] = {}
        numbers: dict[int, int] = {}
        words = [np.empty(0, np.uint64)]
        sizes: list[int] = []
        for names, texts in batches(held_out):
            batch_words, ends = hash_words(texts)
            batch_sizes = np.diff(ends, prepend=0)
            is_new = np.zeros(len(names), np.bool_)
            keys = text_hashes(batch_words, ends).tolist()
            for position, (name, key) in enumerate(zip(names, keys, strict=True)):
                text = numbers.setdefault(key, len(numbers))
                if text == len(self.names):
                    self.names.append([])
                    is_new[position] = True
                    if 0 < batch_sizes[position] < MIN_CONTAINED_WORDS:
                        self.short[key] = text
                self.names[text].append(name)
            is_long = is_new & (batch_sizes >= MIN_CONTAINED_WORDS)
            words.append(batch_words[np.repeat(is_long, batch_sizes)])
            sizes += np.where(is_long, batch_sizes, 0)[is_new].tolist()
        self.words = np.concatenate(words)
        self.ends = np.cumsum(np.array(sizes, np.int64))

    def asked(self, records: list[Record]) -> Iterator[tuple[int, int]]:
        """Row and text of a few words that is all the user says in the row."""
        if not self.short:
            return
        said = [
            "\n".join(m["content"] for m in record.messages if m["role"] == "user")
            for record in records
        ]
        for row, key in enumerate(text_hashes(*hash_words(said)).tolist()):
            if key in self.short:
                yield row, self.short[key]
