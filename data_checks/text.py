"""Normal form of text, words, and hashes of word n-grams, shared by the checks that compare rows.

A word is a run of letters, digits, marks and underscores after NFKC and case folding; every Han
character and kana is a word of its own, since those scripts put no spaces. All else separates.

Kernels are called from Python only, never from another module's kernel: numba's disk cache does
not see that a callee in another file has changed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, AnyStr, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Ends = NDArray[np.int64]
"""End of each text's part of a flat array; a text begins where the one before it ends."""

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Key = TypeVar("Key")

_BATCH_CHARS = 1 << 21
_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_BASE = np.uint64(0x9E3779B97F4A7C15)


def compiled(function: Kernel) -> Kernel:
    """Compile with numba and keep the machine code on disk for the next process.

    numba looks for a writable folder beside the source, then in the user's cache folder. Where
    neither can be written it refuses, and the kernel is compiled anew in each process.
    """
    try:
        kernel = numba.njit(cache=True)(function)
    except RuntimeError:
        kernel = numba.njit(function)
    return cast(Kernel, kernel)


class _WordTable(dict[int, str | None]):
    """Translation by code point, filled when a character is first met."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        category = unicodedata.category(char)
        if category == "Cf":
            self[code] = None
        elif char == "_" or category[0] in "LNM":
            name = unicodedata.name(char, "")
            alone = name.startswith(("CJK UNIFIED", "HIRAGANA LETTER", "KATAKANA LETTER"))
            self[code] = f" {char} " if alone else char
        else:
            self[code] = " "
        return self[code]


class _IgnorableTable(dict[int, int | None]):
    """Drops format characters (zero-width space, soft hyphen, byte-order mark)."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code)) == "Cf" else code
        return self[code]


_WORDS = _WordTable()
_IGNORABLE = _IgnorableTable()
_ASCII_WORDS = bytes(ord(_WORDS[code] or " ") for code in range(128)) + bytes(range(128, 256))


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    visible = text.translate(_IGNORABLE)
    folded = unicodedata.normalize("NFKC", visible).casefold()
    return unicodedata.normalize("NFKC", folded)


def normalise(text: str) -> str:
    """NFKC, case folded, format characters dropped, white space collapsed and stripped."""
    return " ".join(_fold(text).split())


def words(text: str) -> list[str]:
    """The words of a text in order; empty where there is none."""
    return _fold(text).translate(_WORDS).split()


def hash_words(texts: Iterable[str]) -> tuple[Hashes, Ends]:
    """64-bit hashes of the words of some texts, flat, and where each text's words end."""
    parts = [_word_bytes(text) for text in texts]
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    buffer = np.frombuffer(b"".join(parts) or b" ", np.uint8)
    return _hash_words(buffer, np.cumsum(sizes))


def _word_bytes(text: str) -> bytes:
    """The words in UTF-8, separated by spaces; most text is ASCII and takes the quick way."""
    if text.isascii():
        return text.lower().encode().translate(_ASCII_WORDS)
    return _fold(text).translate(_WORDS).encode("utf-8", "surrogatepass")


def ngram_hashes(word_hashes: Hashes, ends: Ends, n: int) -> tuple[Hashes, Ends]:
    """Hashes of the word n-grams of each text in order, flat, and where each text's end.

    A text of fewer than n words gives one hash, that of all its words; it differs from the hash of
    any n-gram, since the number of words is part of the hash. A text without words gives none.
    """
    return _ngram_hashes(word_hashes, ends, n)


def text_hashes(word_hashes: Hashes, ends: Ends) -> Hashes:
    """One hash for all words of each text, in order; 0 for a text without words."""
    sizes = np.diff(ends, prepend=0)
    hashes = np.zeros(ends.size, np.uint64)
    hashes[sizes > 0] = ngram_hashes(word_hashes, ends, max(1, int(sizes.max(initial=0))))[0]
    return hashes


def batches(items: Iterable[tuple[Key, AnyStr]]) -> Iterator[tuple[list[Key], list[AnyStr]]]:
    """Group keyed texts into batches of about two million characters, so that memory stays flat."""
    keys: list[Key] = []
    texts: list[AnyStr] = []
    size = 0
    for key, text in items:
        keys.append(key)
        texts.append(text)
        size += len(text) + 64
        if size >= _BATCH_CHARS:
            yield keys, texts
            keys, texts, size = [], [], 0
    if keys:
        yield keys, texts


def owners(ends: Ends) -> NDArray[np.int64]:
    """For each element of a flat array, the position of the text that it belongs to."""
    return np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))


@compiled
def _mix(value: np.uint64) -> np.uint64:
    """Finaliser of MurmurHash3: every input bit changes about half of the output bits."""
    value = np.uint64(value)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    value ^= value >> np.uint64(33)
    return value


@compiled
def _hash_words(buffer: NDArray[np.uint8], ends: Ends) -> tuple[Hashes, Ends]:
    """FNV-1a over the bytes between spaces."""
    hashes = np.empty(buffer.size // 2 + ends.size + 1, np.uint64)
    word_ends = np.empty(ends.size, np.int64)
    count = 0
    position = 0
    for text in range(ends.size):
        value = _FNV_OFFSET
        inside = False
        while position < ends[text]:
            byte = buffer[position]
            position += 1
            if byte != 32:
                value = (value ^ np.uint64(byte)) * _FNV_PRIME
                inside = True
            elif inside:
                hashes[count] = _mix(value)
                count += 1
                value = _FNV_OFFSET
                inside = False
        if inside:
            hashes[count] = _mix(value)
            count += 1
        word_ends[text] = count
    return hashes[:count].copy(), word_ends


@compiled
def _ngram_hashes(word_hashes: Hashes, ends: Ends, n: int) -> tuple[Hashes, Ends]:
    """Rolling polynomial over the word hashes: one multiplication a word, whatever n is."""
    hashes = np.empty(word_hashes.size, np.uint64)
    gram_ends = np.empty(ends.size, np.int64)
    leading = np.uint64(1)
    for _ in range(n):
        leading *= _BASE
    count = 0
    start = 0
    for text in range(ends.size):
        end = ends[text]
        length = min(n, end - start)
        tag = np.uint64(length) * _FNV_PRIME
        value = np.uint64(0)
        for position in range(start, end):
            value = value * _BASE + word_hashes[position]
            if position - start >= n:
                value -= leading * word_hashes[position - n]
            if position - start + 1 >= length:
                hashes[count] = _mix(value ^ tag)
                count += 1
        gram_ends[text] = count
        start = end
    return hashes[:count].copy(), gram_ends
