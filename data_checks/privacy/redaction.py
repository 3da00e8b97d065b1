"""What stands in the place of an identifier: a placeholder, a pseudonym, or a coarser value."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from data_checks.privacy.date_shift import shift, year
from data_checks.privacy.scanning import Finding
from sft_core.config import PrivacyConfig
from sft_core.errors import ConfigError

_MAX_SHIFT_DAYS = 365
"""Dates move by 1 to this many days, back or forth."""

# Three-digit areas of 20,000 people or fewer, which Safe Harbor wants as 000. Source: HHS,
# "Guidance Regarding Methods for De-identification" (2012), by the 2000 census.
_SMALL_AREAS = frozenset(
    (
        *("036", "059", "063", "102", "203", "556", "692", "790", "821"),
        *("823", "830", "831", "878", "879", "884", "890", "893"),
    )
)
_WORDS = frozenset(("name", "street", "email", "url", "date"))
"""Kinds whose punctuation matters; of all others only letters and digits do."""


@dataclass(slots=True)
class Replacements:
    """The actions of a config for the values of one record; equal values get equal replacements.

    Values are equal but for case and spacing, numbers also but for what separates their groups.

    Raises:
        ConfigError: an action needs the secret key, and there is none.
    """

    config: PrivacyConfig
    row_id: str
    key: bytes | None
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.config.needs_key and not self.key:
            raise ConfigError(
                "privacy: found no secret key, which pseudonymize and shift need. Give one, or "
                "choose redact."
            )

    def changes(self, kind: str, value: str) -> bool:
        """Whether the value gives way to another text, shifted dates aside."""
        action = getattr(self.config, kind)
        if action == "shift":
            return shift(value, self._days()) is None
        return action in ("redact", "pseudonymize", "generalize")

    def shifts(self, kind: str, value: str) -> bool:
        """Whether the value is a date that moves."""
        return getattr(self.config, kind) == "shift" and not self.changes(kind, value)

    def replacement(self, kind: str, value: str) -> str:
        """`[NAME_1]`, `[NAME_a1b2c3d4e5]` or the coarser value; where there is none, `[DATE_1]`."""
        action = getattr(self.config, kind)
        if action == "pseudonymize":
            digest = self._hmac(f"{kind}\0{_normal(kind, value)}").hexdigest()
            return f"[{kind.upper()}_{digest[:10]}]"
        if action == "generalize" and (coarse := _COARSER[kind](value)):
            return coarse
        same_kind = sum(name == kind for name, _ in self._numbers)
        number = self._numbers.setdefault((kind, _normal(kind, value)), same_kind + 1)
        return f"[{kind.upper()}_{number}]"

    def shifted(self, _kind: str, value: str) -> str:
        """The date as many days later as all dates of the record."""
        return shift(value, self._days()) or ""

    def _days(self) -> int:
        """Days from the key and the row: never 0, the same for every date of the record."""
        number = int.from_bytes(self._hmac(f"shift\0{self.row_id}").digest()[:8], "big")
        days = number % (2 * _MAX_SHIFT_DAYS) - _MAX_SHIFT_DAYS
        return days + (days >= 0)

    def _hmac(self, text: str) -> hmac.HMAC:
        message = text.encode("utf-8", "surrogatepass")
        return hmac.new(self.key or b"", message, hashlib.sha256)


def substitute(text: str, findings: Sequence[Finding], replace: Callable[[str, str], str]) -> str:
    """The text with each finding replaced; findings are in order and do not overlap."""
    pieces = []
    end = 0
    for finding in findings:
        value = text[finding.start : finding.end]
        pieces += [text[end : finding.start], replace(finding.kind, value)]
        end = finding.end
    return "".join([*pieces, text[end:]])


def _normal(kind: str, value: str) -> str:
    value = value.casefold()
    if kind in _WORDS:
        return " ".join(value.split())
    return "".join(filter(str.isalnum, value)) or value


def _coarse_area(value: str) -> str | None:
    """The first three signs, the others masked; None where nothing would be masked."""
    if re.match("[0-9]{5}", value) and value[:3] in _SMALL_AREAS:
        return "000**"
    places = [i for i, c in enumerate(value) if c.isalnum()]
    if len(places) <= 3:
        return None
    return value[: places[3]] + re.sub(r"\w", "*", value[places[3] :])


def _coarse_ip(value: str) -> str:
    """The first 24 bits of an IPv4 address, the first 48 of an IPv6 one."""
    if ":" not in value:
        return value[: value.rindex(".")] + ".*"
    return ":".join(ipaddress.IPv6Address(value).exploded.split(":")[:3]) + ":*"


_COARSER: dict[str, Callable[[str], str | None]] = {
    "date": year,
    "age": lambda _: "[AGE_90+]",
    "postal_code": _coarse_area,
    "ip": _coarse_ip,
}
