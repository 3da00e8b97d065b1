"""Which rows may be used: by licence, by consent, and by what people asked to have erased."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sft_core.config import TermsConfig
from sft_core.errors import DataError
from sft_core.records import Decision

_ROW_ID = re.compile("[0-9a-f]{64}")


def subject_pseudonym(subject: object, key: bytes) -> str:
    """32 hex digits of a keyed HMAC-SHA256, so that a ledger names nobody; empty for no subject."""
    text = "" if subject is None else str(subject).strip()
    if not text:
        return ""
    return hmac.new(key, f"subject:{text}".encode("utf-8", "replace"), "sha256").hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Origin:
    """What a source row says about itself."""

    row: int
    row_id: str
    licence: str
    consent: str
    subject: str
    """Pseudonym of the person that the row is about, or empty."""


def read_erasure_list(path: str | None, key: bytes) -> frozenset[str]:
    """Row ids and pseudonyms of subjects; no path gives an empty list.

    The file is UTF-8 text with an entry a line: a row id (64 hex digits), or the key of a subject
    as the subject column has it. Blank lines and lines that begin with `#` are passed over.

    Raises:
        DataError: the file cannot be read.
    """
    if path is None:
        return frozenset()
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: the erasure list cannot be read as UTF-8 text. Check terms.erasure_list."
        ) from error
    entries = (line.strip() for line in lines)
    return frozenset(
        entry if _ROW_ID.fullmatch(entry) else subject_pseudonym(entry, key)
        for entry in entries
        if entry and not entry.startswith("#")
    )


class Terms:
    """The config's terms, applied to one row after another."""

    def __init__(self, config: TermsConfig, erased: frozenset[str]) -> None:
        self._licences = config.allowed_licences and _folded(config.allowed_licences)
        self._consent = _folded(config.allowed_consent)
        self._erased = erased
        self.matched: set[str] = set()
        """Entries of the erasure list that a row has matched."""
        self.num_dropped: Counter[str] = Counter()
        """Rows judged so far that may not be used, by reason."""

    def judge(self, origin: Origin) -> Decision | None:
        """A drop with its reason, or None where the row may be used.

        Reasons, in this order: `erased`, `licence_not_allowed`, `no_consent`. Licences and states
        of consent are compared without regard to case, as SPDX asks for its identifiers.
        """
        reason, evidence = self._objection(origin)
        if not reason:
            return None
        self.num_dropped[reason] += 1
        return Decision(origin.row, "dropped", reason, evidence)

    def _objection(self, origin: Origin) -> tuple[str, str]:
        erased = self._erased & {origin.row_id, origin.subject}
        if erased:
            self.matched |= erased
            return "erased", "erasure_list"
        if self._licences is not None and origin.licence.casefold() not in self._licences:
            return "licence_not_allowed", _code(origin.licence)
        if origin.consent.casefold() not in self._consent:
            return "no_consent", _code(origin.consent)
        return "", ""


def _folded(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.casefold() for name in names)


def _code(value: str) -> str:
    """A value that came from a column, as evidence: long ones by their digest alone."""
    if re.fullmatch(r"[\w .+-]{0,40}", value):
        return value
    return f"sha256={hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()[:16]}"
