"""Word lists that the bias audit reads: data files with their source, each replaceable by the user.

`identity_en.json` has identity terms by dimension and group. A term flagged as ambiguous (`black`,
`miss`) makes no mention of its own: rows with nothing else are counted apart, so that a reader sees
how much the list leaves open. `clinical_en.json` has words whose association with a group is to be
expected in medicine, `occupations_en.json` those that are looked at first, `refusals_en.json` how
an answer begins that declines. A user's file has the form of the bundled one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_checks.text import words
from sft_core.config import Shares
from sft_core.errors import ConfigError

_FOLDER = Path(__file__).parent / "lexicons"
BUNDLED = _FOLDER / "identity_en.json"
BUNDLED_CLINICAL = _FOLDER / "clinical_en.json"
BUNDLED_OCCUPATIONS = _FOLDER / "occupations_en.json"
BUNDLED_REFUSALS = _FOLDER / "refusals_en.json"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Terms = Annotated[tuple[str, ...], Field(min_length=1)]
Group = tuple[str, str]
"""Dimension and group, such as `("sex", "female")`."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _WordFile(_Value):
    """The head of every file: where its words come from, and on what terms."""

    name: str
    language: str
    licence: str
    source: str


class GroupTerms(_Value):
    """Words and phrases that mention a group; `ambiguous` maps a term to why it is."""

    terms: Terms
    ambiguous: dict[str, str] = {}


class Reference(_Value):
    """Shares of the groups of a dimension that the data is held against; `source` says whose."""

    source: str
    shares: Shares


Counterparts = Annotated[dict[Name, Terms], Field(min_length=2)]
"""Words that say the same of each group: `{"female": ["her", "hers"], "male": ["him", "his"]}`."""


class Lexicon(_WordFile):
    """Identity terms, with optional counterparts (for swapped twins) and reference shares."""

    dimensions: Annotated[dict[Name, dict[Name, GroupTerms]], Field(min_length=1)]
    counterparts: dict[Name, tuple[Counterparts, ...]] = {}
    references: dict[Name, Reference] = {}


class Heading(_Value):
    """Single words; `source` says on what ground they are listed, for which dimensions (or all)."""

    source: str
    dimensions: Terms | None = None
    terms: Terms


class WordList(_WordFile):
    """Single words by heading."""

    headings: dict[Name, Heading]

    def of(self, dimension: str) -> frozenset[str]:
        """Case-folded words that are listed for a dimension."""
        listed = (h for h in self.headings.values() if dimension in (h.dimensions or (dimension,)))
        return frozenset(word for h in listed for term in h.terms for word in words(term))


class RefusalList(_WordFile):
    """First words of an answer that declines."""

    openings: Terms


File = TypeVar("File", bound=_WordFile)


def load_lexicon(path: str | None) -> Lexicon:
    """Read identity terms; None means the bundled ones.

    Raises:
        ConfigError: the file cannot be read, lacks a field, names a term that has no word or that
            stands in two groups of a dimension, or a group that has no terms. The message names
            the place.
    """
    lexicon = _read(Lexicon, path, BUNDLED, "bias.lexicon")
    place = f"bias.lexicon: {path or BUNDLED}"
    for dimension, groups in lexicon.dimensions.items():
        _check_owners(
            (
                (f"{place}: dimensions.{dimension}.{group}", group, term)
                for group, listed in groups.items()
                for term in (*listed.terms, *listed.ambiguous)
            ),
            _any_words,
        )
    for dimension, rows in lexicon.counterparts.items():
        where = f"{place}: counterparts.{dimension}"
        check_groups(lexicon, dimension, {g for row in rows for g in row}, where)
        _check_owners(
            (
                (f"{where}.{number}.{group}", f"row {number}", term)
                for number, row in enumerate(rows)
                for group, terms in row.items()
                for term in terms
            ),
            _one_word,
        )
    for dimension, reference in lexicon.references.items():
        check_groups(lexicon, dimension, reference.shares, f"{place}: references.{dimension}")
    return lexicon


def load_clinical_terms(path: str | None) -> WordList:
    """Read words whose association with a group is expected; None means the bundled ones.

    Raises:
        ConfigError: the file cannot be read, lacks a field, or has a term of several words.
    """
    return _load_words(path, BUNDLED_CLINICAL, "bias.clinical_terms")


def load_occupations(path: str | None) -> WordList:
    """Read words for occupations; None means the bundled ones.

    Raises:
        ConfigError: the file cannot be read, lacks a field, or has a term of several words.
    """
    return _load_words(path, BUNDLED_OCCUPATIONS, "bias.occupations")


def load_refusals(path: str | None) -> tuple[str, ...]:
    """Read how refusals begin, as case-folded words joined by a space; None: the bundled ones.

    Raises:
        ConfigError: the file cannot be read, lacks a field, or has an opening without a word.
    """
    listed = _read(RefusalList, path, BUNDLED_REFUSALS, "bias.refusals")
    place = f"bias.refusals: {path or BUNDLED_REFUSALS}: openings"
    return tuple(_any_words(place, opening) for opening in listed.openings)


def check_groups(lexicon: Lexicon, dimension: str, groups: Iterable[str], place: str) -> None:
    """Refuse a dimension that the lexicon does not have, or groups that the dimension does not.

    Raises:
        ConfigError: the message begins with the place and lists what there is.
    """
    if dimension not in lexicon.dimensions:
        raise ConfigError(
            f"{place}: no dimension {dimension} in the lexicon (it has: "
            f"{', '.join(lexicon.dimensions)}). Correct the name, or add it to the lexicon."
        )
    known = lexicon.dimensions[dimension]
    if unknown := sorted(set(groups) - known.keys()):
        raise ConfigError(
            f"{place}: no group {', '.join(unknown)} in the lexicon (it has: {', '.join(known)}). "
            "Correct the name, or add the group to the lexicon."
        )


def _read(form: type[File], path: str | None, bundled: Path, key: str) -> File:
    file = Path(path) if path else bundled
    try:
        return form.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{key}: {file}: cannot be read: {error.strerror}. Leave it empty for the bundled one."
        ) from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise ConfigError(
            f"{key}: {file}: {where}: {problem['msg']}. Take the form from "
            f"data_checks/bias/lexicons/{bundled.name}."
        ) from None


def _load_words(path: str | None, bundled: Path, key: str) -> WordList:
    listed = _read(WordList, path, bundled, key)
    for name, heading in listed.headings.items():
        for term in heading.terms:
            _one_word(f"{key}: {path or bundled}: headings.{name}", term)
    return listed


def _check_owners(
    listed: Iterator[tuple[str, str, str]], folded: Callable[[str, str], str]
) -> None:
    """Every term has words, and one owner; items are place, owner and term."""
    owners: dict[str, str] = {}
    for place, owner, term in listed:
        key = folded(place, term)
        if key in owners:
            raise ConfigError(
                f"{place}: the term {term!r} stands in {owners[key]} too. Keep one of the two."
            )
        owners[key] = owner


def _any_words(place: str, term: str) -> str:
    folded = " ".join(words(term))
    if not folded:
        raise ConfigError(f"{place}: the term {term!r} has no word in it. Remove it.")
    return folded


def _one_word(place: str, term: str) -> str:
    if len(words(term)) != 1:
        raise ConfigError(
            f"{place}: the term {term!r} is not one word. Only single words fit here."
        )
    return words(term)[0]
