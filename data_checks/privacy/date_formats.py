"""Dates finer than a year, and ages over 89.

Both are identifiers of HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C). A date needs three
numbers with the ranges of a date, or the name of a month with a day or a year, so that `1.5-54` and
`120/80` are none. Days of the week count, as in the guideline of the i2b2 2014 de-identification
corpus.
"""

from __future__ import annotations

import re

from data_checks.privacy.check_digits import is_date
from data_checks.privacy.scanning import Detector, Span

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_MONTH = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    "|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?"
)
# Without may and march, which are verbs.
_LOWER_MONTH = (
    "jan(?:uary)?|feb(?:ruary)?|apr(?:il)?|june?|july?|aug(?:ust)?"
    "|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)
_THREE_NUMBERS = re.compile(r"(\d+)[-/.](\d+)[-/.](\d+)")
_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"


def is_numeric_date(value: str) -> bool:
    """Whether a text is three numbers that can be a date: `2004-05-03`, `3.5.2004`."""
    match = _THREE_NUMBERS.fullmatch(value)
    return match is not None and is_date((int(match[1]), int(match[2]), int(match[3])))


def _date(match: re.Match[str]) -> Span | None:
    return match.span() if is_numeric_date(match["d"]) else None


DETECTORS = (
    # ISO 8601, and the numeric forms of most countries; two-digit years only behind slashes.
    Detector(
        "date",
        r"\b(?:[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]"
        "|[0-9]{1,2}(?:[-/.][0-9]{1,2}[-/.][0-9]{4}|/[0-9]{1,2}/[0-9]{2}))",
        re.compile(
            r"(?<![\w.,/<=*+-])(?P<d>[0-9]{4}([-/.])[0-9]{1,2}\2[0-9]{1,2}"
            r"|[0-9]{1,2}([-/.])[0-9]{1,2}\3[0-9]{4}|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2})"
            r"(?:[T ][0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?"
            r"(?![\w/*=]|[.,-][0-9])"
        ),
        _date,
    ),
    # 3 May 2004, 3rd of May, 03-MAY-04.
    Detector(
        "date",
        rf"(?i)\b[0-9]{{1,2}}(?:st|nd|rd|th)?(?: of)?[ .-]{{1,2}}(?:{_MONTH})\b",
        re.compile(
            r"(?<![\w.,/$-])(?:0?[1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?(?: of)?[ .-]{1,2}"
            rf"(?:{_MONTH}|{_MONTH.upper()}|{_LOWER_MONTH}|{_LOWER_MONTH.upper()})\b\.?"
            r"(?:,?[ -]{1,2}(?:[12][0-9]{3}|[0-9]{2})(?![0-9]|[.,:][0-9]))?"
        ),
    ),
    # May 3, 2004; May 3rd; May 2004.
    Detector(
        "date",
        rf"(?i)\b(?:{_MONTH})\.?,?(?: of)?[ -][0-9]",
        re.compile(
            rf"\b(?:{_MONTH}|{_MONTH.upper()}|{_LOWER_MONTH})\.?"
            r"(?:,?(?: of)?[ -](?:1[6-9]|20)[0-9]{2}(?![\w]|[.,][0-9])"
            r"|[ -](?:[12][0-9]|3[01]|0?[1-9])(?:st|nd|rd|th)?(?![\w%]|[.:/][0-9]|,[0-9]{3})"
            r"(?:,? (?:1[6-9]|20)[0-9]{2}\b)?)"
        ),
    ),
    Detector("date", rf"(?i)\b{_DAY}\b", re.compile(rf"(?i)\b{_DAY}\b")),
    # Not the upper end of a range, `18 to 95 years old`, which describes a population.
    Detector(
        "age",
        r"(?i)\b(?:9|1[0-2])[0-9][- ]{0,2}y|\baged?\b[^0-9]{0,8}(?:9|1[0-2])[0-9]",
        re.compile(
            r"(?i)(?<![\w.,–-])(?<!\bto )(?<!\band )(?<!\bor )(?P<v>9[0-9]|1[01][0-9]|12[0-5])"
            r"(?:[- ]{0,2}(?:years?|yrs?|y)[- .]{0,2}(?:old|of[- ]age|o\b)|[ -]?y[./]?o\b)"
            r"|\b(?:age|aged)(?:[ \t]*(?:of|is|was|at|[:=]))*[ \t]*(?P<w>9[0-9]|1[01][0-9]|12[0-5])"
            r"(?![\w%]|[.,][0-9]| ?[-–/]| (?:to|and|or|days?|weeks?|months?|hours?|minutes?|%)\b)"
        ),
        lambda m: m.span("v") if m["v"] else m.span("w"),
    ),
)
