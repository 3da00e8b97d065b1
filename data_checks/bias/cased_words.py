"""The words of a text as bytes that still tell which of them began with a capital."""

from __future__ import annotations

import unicodedata

from data_checks.text import words

CAPITAL = b"\x01"
"""Stands before a folded letter outside ASCII that was a capital."""


class _Visible(dict[int, int | None]):
    """Drops format characters (zero-width space, soft hyphen)."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code)) == "Cf" else code
        return self[code]


class _Table(dict[int, str]):
    """Translation by code point, filled when a character is first met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        folded, twice = words(char), words(char * 2)
        mark = CAPITAL.decode() if char.isupper() else ""
        if not folded:
            self[code] = " "
        elif len(twice) > 1:  # a word of its own, as every Han character
            self[code] = f" {' '.join(folded)} "
        else:
            self[code] = char if char.isascii() else mark + folded[0]
        return self[code]


_VISIBLE = _Visible()
_TABLE = _Table()
_ASCII = "".join(_TABLE[code] for code in range(128)).encode() + bytes(range(128, 256))


def cased_words(text: str) -> bytes:
    """The words of `text.words` in UTF-8 between spaces; ASCII letters keep their case, a capital
    outside ASCII is folded and marked."""
    if text.isascii():
        return text.encode().translate(_ASCII)
    marked = unicodedata.normalize("NFKC", text.translate(_VISIBLE)).translate(_TABLE)
    # Folding can bring a letter and an accent together (sharp s before one).
    return unicodedata.normalize("NFKC", marked).encode("utf-8", "surrogatepass")


def folded(cased: bytes) -> bytes:
    """The same without case: what `text.words` gives, in UTF-8 between spaces."""
    return cased.replace(CAPITAL, b"").lower()
