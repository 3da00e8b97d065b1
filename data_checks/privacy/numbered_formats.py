"""Numbers that a named thing or register carries: records, plans, accounts, licences, devices.

A number without a name before it is found only when its shape or its check digits tell what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from data_checks.privacy import national_numbers
from data_checks.privacy.check_digits import is_dea, is_npi, is_vin
from data_checks.privacy.date_formats import is_numeric_date
from data_checks.privacy.scanning import Detector, Span

_LINK = r"(?:[ \t]*(?i:number|no\b\.?|nr\b\.?|id|is|was|card|code|registration|[#:.=]))*[ \t]*"
"""What stands between the name of a number and the number."""
_VALUE = r"(?P<v>[A-Z0-9](?:[A-Z0-9]|[-/.](?=[A-Z0-9])){3,24}(?![A-Za-z0-9]))"

# Words that name a number by themselves, and words that need "number", "no" or "id" after them.
_NAMES: dict[str, tuple[str, str]] = {
    "record_number": (
        r"(?i:mrn)|M\.R\.N\.?",
        r"(?:medical |health |hospital )?record|patient|chart|claim|encounter|visit|employee"
        r"|student|case|specimen|accession|customer|user|certificate",
    ),
    "health_plan": (
        r"HICN|MBI",
        r"polic(?:y|ies)|member(?:ship)?|subscriber|beneficiary|insurance|medicare|medicaid"
        r"|health plan|group plan",
    ),
    "account": (
        r"(?i:acct|a/c)",
        r"(?:bank |checking |savings )?account|routing|sort",
    ),
    "licence": (
        r"DLN",
        r"(?:driver'?s?'? |driving |medical |nursing |professional |pilot )?licen[cs]e",
    ),
    "vehicle": (
        r"VIN",
        r"vehicle|(?:number|licen[cs]e|registration) plate|chassis",
    ),
    "device": (
        r"IMEI|UDI",
        r"serial|device|pacemaker|implant",
    ),
    "national_id": (
        r"(?i:passport)",
        r"passport|national|identity|identification|tax(?:payer)?|social insurance",
    ),
}


_DIGIT = re.compile("[0-9]")


def _compact(text: str) -> str:
    return "".join(filter(str.isalnum, text)).upper()


def _numbered(match: re.Match[str]) -> Span | None:
    """At least four digits, and no date."""
    value = match["v"].rstrip("-/.")
    if len(_DIGIT.findall(value)) < 4 or is_numeric_date(value):
        return None
    return match.start("v"), match.start("v") + len(value)


def _named(kind: str, names: str, nouns: str) -> tuple[Detector, Detector]:
    by_name = Detector(
        kind,
        rf"\b(?:{names})[^0-9_\[]{{0,24}}[0-9]",
        re.compile(rf"\b(?:{names}){_LINK}{_VALUE}"),
        _numbered,
    )
    tag = r"(?:number|no\b\.?|nr\b\.?|num\b\.?|id|identifier|code|#)"
    by_noun = Detector(
        kind,
        rf"(?i)\b(?:{nouns})[ _]?(?:(?:id|identity|identification|identifier|card)[ _])?"
        r"(?:number|no\b|nr\b|num\b|id\b|identifier|code|#)[^0-9_\n\[]{0,24}[0-9]",
        re.compile(
            rf"(?i:\b(?:{nouns})[ _]?(?:(?:id|identity|identification|identifier|card)[ _])?{tag})"
            rf"{_LINK}{_VALUE}"
        ),
        _numbered,
    )
    return by_name, by_noun


def _one_of(
    checks: dict[str, tuple[str, Callable[[str], bool]]],
) -> Callable[[re.Match[str]], Span | None]:
    """The value, when the check of the group that matched holds."""

    def span(match: re.Match[str]) -> Span | None:
        name = next(name for name in checks if match[name])
        value = match["v"] if "v" in match.re.groupindex else match[0]
        if not checks[name][1](_compact(value)):
            return None
        return match.span("v") if "v" in match.re.groupindex else match.span()

    return span


def _groups(patterns: dict[str, tuple[str, Callable[[str], bool]]]) -> str:
    return "|".join(f"(?P<{name}>{pattern})" for name, (pattern, _) in patterns.items())


_REGISTERS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "npi": ("NPI", is_npi),
    "dea": ("DEA", lambda code: code[2:].isdigit() and is_dea(code)),
}


def _vin(match: re.Match[str]) -> Span | None:
    mixed = not match[0].isdigit() and not match[0].isalpha()
    return match.span() if mixed and is_vin(match[0]) else None


DETECTORS = (
    # After its name: digits with a check, `NHS 943 476 5919`.
    Detector(
        "national_id",
        rf"(?i)\b(?:{'|'.join(p for p, _ in national_numbers.CUED.values())})\b"
        r"[^0-9_\[]{0,24}[0-9]{2}",
        re.compile(
            rf"\b(?i:{_groups(national_numbers.CUED)})\b{_LINK}"
            r"(?P<v>[0-9](?:[ .-]?[0-9]){8,11})(?![A-Za-z0-9])"
        ),
        _one_of(national_numbers.CUED),
    ),
    Detector(
        "national_id",
        rf"\b(?:{'|'.join(pattern for pattern, _ in national_numbers.BARE.values())})",
        re.compile(rf"(?<![\w.-])(?:{_groups(national_numbers.BARE)})(?![\w-])(?!\.[0-9])"),
        _one_of(national_numbers.BARE),
    ),
    Detector(
        "licence",
        r"(?i)\b(?:npi|dea)\b[^0-9_\[]{0,24}[0-9]{3}",
        re.compile(
            rf"\b(?i:{_groups(_REGISTERS)})\b{_LINK}"
            r"(?P<v>[A-Z][A-Z9][0-9]{7}|[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4})(?![A-Za-z0-9])"
        ),
        _one_of(_REGISTERS),
    ),
    # Medicare Beneficiary Identifier, 1EG4-TE5-MK73. Source: CMS, "Understanding the MBI format".
    Detector(
        "health_plan",
        r"\b[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9]-?[AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9]"
        "-?[AC-HJKMNP-RT-Y]{2}[0-9]{2}",
        re.compile(
            r"(?<![\w-])[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9](?P<s>-?)[AC-HJKMNP-RT-Y]"
            r"[0-9AC-HJKMNP-RT-Y][0-9](?P=s)[AC-HJKMNP-RT-Y]{2}[0-9]{2}(?![\w-])"
        ),
    ),
    Detector(
        "vehicle",
        r"\b[A-HJ-NPR-Z0-9]{17}\b",
        re.compile(r"(?<![\w])[A-HJ-NPR-Z0-9]{17}(?![\w])"),
        _vin,
    ),
    # Unique device identifier in GS1 form, all parts: (01)00844588003288(17)141120(21)A1.
    Detector(
        "device",
        r"\(01\) ?[0-9]{14}",
        re.compile(
            r"\(01\) ?(?P<gtin>[0-9]{14})(?:[ ]?\((?:10|11|17|21)\) ?[A-Za-z0-9-]{1,20}){0,4}"
        ),
        lambda m: m.span() if national_numbers.is_gs1(m["gtin"], 14) else None,
    ),
    *(
        detector
        for kind, (names, nouns) in _NAMES.items()
        for detector in _named(kind, names, nouns)
    ),
)
