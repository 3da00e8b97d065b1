"""Identity terms by dimension and group, and which groups a text mentions.

The bundled list is `lexicons/identity_en.json`; a user's file has the same form. A term flagged
as ambiguous (`black`, `miss`) makes no mention of its own: rows with nothing else are counted
apart, so that a reader sees how much the list leaves open.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_checks.text import words
from sft_core.errors import ConfigError

BUNDLED = Path(__file__).parent / "lexicons" / "identity_en.json"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Group = tuple[str, str]
"""Dimension and group, such as `("sex", "female")`."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GroupTerms(_Value):
    """Words and phrases that mention a group; `ambiguous` maps a term to why it is."""

    terms: Annotated[tuple[str, ...], Field(min_length=1)]
    ambiguous: dict[str, str] = {}


class Lexicon(_Value):
    """The file: `source` and `licence` tell where the terms come from."""

    name: str
    language: str
    licence: str
    source: str
    dimensions: Annotated[dict[Name, dict[Name, GroupTerms]], Field(min_length=1)]


class MentionFinder:
    """Finds which groups of a lexicon a text mentions: whole words, case folded."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.groups: tuple[Group, ...] = tuple(
            (dimension, group)
            for dimension, groups in lexicon.dimensions.items()
            for group in groups
        )
        self.words: dict[str, frozenset[str]] = {}
        """Words of all terms of each dimension."""
        self._by_first: dict[str, list[tuple[str, Group, bool]]] = defaultdict(list)
        for dimension, groups in lexicon.dimensions.items():
            used: set[str] = set()
            for group, listed in groups.items():
                for term in (*listed.terms, *listed.ambiguous):
                    parts = words(term)
                    used.update(parts)
                    entry = (" ".join(parts), (dimension, group), term in listed.ambiguous)
                    self._by_first[parts[0]].append(entry)
            self.words[dimension] = frozenset(used)
        self._firsts = frozenset(self._by_first)

    def find(self, text_words: list[str]) -> tuple[set[Group], set[Group]]:
        """Groups mentioned by a clear term, and groups met only by an ambiguous one."""
        clear: set[Group] = set()
        unclear: set[Group] = set()
        present = self._firsts.intersection(text_words)
        if not present:
            return clear, unclear
        line = f" {' '.join(text_words)} "
        for word in present:
            for term, group, ambiguous in self._by_first[word]:
                if term == word or f" {term} " in line:
                    (unclear if ambiguous else clear).add(group)
        return clear, unclear - clear


def load_lexicon(path: str | None) -> Lexicon:
    """Read a lexicon; None means the bundled one.

    Raises:
        ConfigError: the file cannot be read, lacks a field, or names a term that has no word, or
            that stands in two groups of a dimension. The message names the place.
    """
    file = Path(path) if path else BUNDLED
    try:
        lexicon = Lexicon.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"bias.lexicon: {file}: cannot be read: {error.strerror}. Leave it empty for the "
            "bundled one."
        ) from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise ConfigError(
            f"bias.lexicon: {file}: {where}: {problem['msg']}. Take the form from "
            "data_checks/lexicons/identity_en.json."
        ) from None
    for dimension, groups in lexicon.dimensions.items():
        owner: dict[str, str] = {}
        for group, listed in groups.items():
            for term in (*listed.terms, *listed.ambiguous):
                key = " ".join(words(term))
                place = f"bias.lexicon: {file}: dimensions.{dimension}.{group}: the term {term!r}"
                if not key:
                    raise ConfigError(f"{place} has no word in it. Remove it.")
                if key in owner:
                    raise ConfigError(f"{place} stands in {owner[key]} too. Keep one of the two.")
                owner[key] = group
    return lexicon
