"""Move a written date by some days and keep the way it is written."""

from __future__ import annotations

import re
from datetime import date, timedelta

from data_checks.privacy.date_formats import DAYS, MONTHS

_NUMERIC = re.compile(r"(?P<a>[0-9]{1,4})(?P<sep>[-/.])(?P<b>[0-9]{1,2})(?P=sep)(?P<c>[0-9]{1,4})")
_DAY = r"(?P<d>[0-9]{1,2})(?P<th>st|nd|rd|th)?"
_MONTH = r"(?P<m>[A-Za-z]{3,9})"
_YEAR = r"(?P<y>[0-9]{4}|[0-9]{2})"
_DAY_FIRST = re.compile(rf"{_DAY}(?: of)?[ .-]{{1,2}}{_MONTH}\.?,?[ -]{{1,2}}{_YEAR}")
_MONTH_FIRST = re.compile(rf"{_MONTH}\.?[ -]{_DAY},? {_YEAR}")


def shift(text: str, days: int) -> str | None:
    """The date so many days later, in the same format; a weekday moves through the week.

    None where it cannot be done: no year, no day, or no such date. A numeric date that reads both
    ways is month first behind slashes and dashes, day first behind dots. A time of day stays, and
    a year keeps its number of digits.
    """
    if text.title() in DAYS:
        return _in_case(DAYS[(DAYS.index(text.title()) + days) % 7], text)
    if match := _NUMERIC.match(text):
        places = _order(match)
    elif match := _DAY_FIRST.fullmatch(text) or _MONTH_FIRST.fullmatch(text):
        places = ("y", "m", "d")
    else:
        return None
    try:
        y, m, d = (_number(match[place]) for place in places)
        before = date(y + 2000 if y < 100 else y, m, d)
        after = before + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    new = dict(zip(places, (after.year, after.month, after.day), strict=True))
    pieces, end = [], 0
    for place in sorted(new, key=match.start):
        old = match[place]
        pieces += [text[end : match.start(place)], _written(new[place], old)]
        end = match.end(place)
        if place == "d" and match["th"]:
            pieces.append(_ordinal(new[place]))
            end = match.end("th")
    return "".join([*pieces, text[end:]])


def year(text: str) -> str | None:
    """The year of a date, of two digits where it is written so; None where it has none."""
    if found := re.search(r"(?<![0-9])[0-9]{4}(?![0-9])", text):
        return found[0]
    last = re.search(r"[0-9][-/. ](?:[0-9]{1,2}|[A-Za-z]{3,9})[-/. ]{1,2}([0-9]{2})$", text)
    return last[1] if last else None


def _order(match: re.Match[str]) -> tuple[str, str, str]:
    """Names of the parts for year, month and day."""
    if len(match["a"]) == 4:
        return "a", "b", "c"
    day_first = int(match["a"]) > 12 or (match["sep"] == "." and int(match["b"]) <= 12)
    return ("c", "b", "a") if day_first else ("c", "a", "b")


def _number(part: str) -> int:
    """The number of a month by its name, 0 for another word; else the digits."""
    if part.isalpha():
        return sum(i for i, name in enumerate(MONTHS, 1) if name.startswith(part.title()[:3]))
    return int(part)


def _written(value: int, like: str) -> str:
    """The number in the width, or the month in the length and the case, of what stood there."""
    if like.isalpha():
        name = MONTHS[value - 1]
        return _in_case(
            name if len(like) > 4 or like.title() in ("June", "July") else name[:3], like
        )
    return f"{value:0{len(like)}d}" if value < 1000 else str(value)[-len(like) :]


def _in_case(name: str, like: str) -> str:
    return name.upper() if like.isupper() else name.lower() if like.islower() else name


def _ordinal(day: int) -> str:
    return "th" if 10 <= day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
