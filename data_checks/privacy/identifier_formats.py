"""Addresses of the net, telephones, cards, bank accounts: formats that prove themselves.

A format earns its place by public documentation, not by a corpus. In clinical text numbers are
everywhere (doses, pressures, PMIDs), so that a bare number needs a word before it, a check digit,
or both. The order is the precedence among overlapping findings.
"""

from __future__ import annotations

import ipaddress
import re

from data_checks.privacy.check_digits import iban_length, is_card, is_iban, is_ssn, luhn
from data_checks.privacy.date_formats import is_numeric_date
from data_checks.privacy.scanning import Detector, Span

_SEP = "[ .\u00a0\u2010\u2011\u2013/-]"
"""What stands between the groups of a telephone number."""
_NO_DIGITS = re.compile("[^0-9]+")
_EXTENSION_AFTER = re.compile("[xe,].*")


def _digits(text: str) -> str:
    return _NO_DIGITS.sub("", text)


def _card(match: re.Match[str]) -> Span | None:
    """Luhn always; the issuer's prefix too, unless a word such as card stands before."""
    digits = _digits(match["v"])
    known = luhn(digits) if match["cue"] else is_card(digits)
    return match.span("v") if known else None


def _iban(match: re.Match[str]) -> Span | None:
    """The first characters of the match that make up the country's length, spaces left out."""
    length = iban_length(match[0])
    places = [i for i, c in enumerate(match[0]) if c.isalnum()]
    if length is None or len(places) < length:
        return None
    code = "".join(match[0][i] for i in places[:length])
    end = match.start() + places[length - 1] + 1
    after = match.string[end : end + 1]
    if after.isalnum() or not is_iban(code):
        return None
    return match.start(), end


def _ssn(match: re.Match[str]) -> Span | None:
    digits = _digits(match["v"])
    return match.span("v") if is_ssn(digits[:3], digits[3:5], digits[5:]) else None


def _ipv6(match: re.Match[str]) -> Span | None:
    """A valid address with three groups or more: `a::b` in source code is none."""
    try:
        ipaddress.IPv6Address(match[0])
    except ValueError:
        return None
    return match.span() if sum(map(bool, match[0].split(":"))) >= 3 else None


def _phone(match: re.Match[str]) -> Span | None:
    """8 to 15 digits behind a plus (ITU-T E.164), else from 7, and no date in disguise; three more
    for a leading 00 and a (0).
    """
    value = match["v"]
    international = value.startswith(("+", "00"))
    if not (8 if international else 7) <= len(_digits(_EXTENSION_AFTER.sub("", value))) <= 18:
        return None
    return None if is_numeric_date(value) else match.span("v")


def _trunk_phone(match: re.Match[str]) -> Span | None:
    return match.span() if 9 <= len(_digits(match[0])) <= 11 else None


def _url(match: re.Match[str]) -> Span | None:
    return match.start(), match.start() + len(match[0].rstrip(".,;:!?'*_)"))


_IPV4 = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_EXTENSION = r"(?:[ ,]{0,2}(?:x|ext\.?|extension)[ .]{0,2}[0-9]{1,5})?"
_GROUPED = r"\(?[0-9]{2,5}\)?(?:[ .\u00a0\u2010\u2011\u2013-]{1,2}\(?[0-9]{2,7}\)?){1,4}"
_PHONE_CUE = (
    r"(?:tele)?phones?|tel|mobile|cell(?:ular)?|fax|pager|beeper|hotline|whatsapp|sms|text|dial"
    r"|call(?:ed|ing)?|reach|ring|contact|answering|messages?|registered|desk|voicemail"
)
_STRONG_PHONE_CUE = r"(?:tele)?phone|tel|mobile|cell|fax|pager|hotline|whatsapp|voicemail|desk"

DETECTORS = (
    # RFC 5322 dot-atoms with letters of any script (RFC 6531).
    Detector(
        "email",
        r"[^\s@]@[^\s@]+\.",
        re.compile(r"(?<![\w.+-])[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62}"),
        starts=r"[\w.%+'\x{80}-\x{10FFFF}-]{1,64}@[^\s@]+\.",
    ),
    # ISO 13616.
    Detector(
        "iban",
        r"[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11}",
        re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}"),
        _iban,
    ),
    # ISO/IEC 7812: 12 to 19 digits, bare or in groups.
    Detector(
        "card",
        "[0-9]{4}[ -]?[0-9]{4,6}[ -]?[0-9]{4}",
        re.compile(
            r"(?P<cue>(?i:\b(?:card|cc|visa|mastercard|maestro|amex|jcb))"
            r"(?:[ \t]*(?i:number|no\b\.?|is|[?#:.]))*[ \t]*)?(?<![\w/])(?<![0-9][.,-])"
            r"(?P<v>[0-9]{12,19}"
            r"|[0-9]{4}(?P<a>[ -])[0-9]{6}(?P=a)[0-9]{4,5}"
            r"|[0-9]{4}(?P<b>[ -])[0-9]{4}(?P=b)[0-9]{4}(?:(?P=b)[0-9]{1,4}){0,2})"
            r"(?![\w])(?![.,-][0-9])"
        ),
        _card,
        starts=r"(?i)\b(?:(?:card|cc|visa|mastercard|maestro|amex|jcb)"
        r"(?:[ \t]*(?:number|no\b\.?|is|[?#:.]))*[ \t]*)?"
        "[0-9]{4}[ -]?[0-9]{4,6}[ -]?[0-9]{4}",
    ),
    # US social security numbers; without dashes only after their name.
    Detector(
        "ssn",
        r"\b[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}",
        re.compile(r"(?<![\w-])(?P<v>[0-9]{3}([- ])[0-9]{2}\2[0-9]{4})(?![\w-])"),
        _ssn,
    ),
    Detector(
        "ssn",
        r"(?i)(?:\bssn|social security)[^0-9\[\]]{0,20}[0-9]{9}",
        re.compile(r"(?i)(?:\bssn|social security)[^0-9\[\]]{0,20}(?P<v>[0-9]{9})(?![0-9])"),
        _ssn,
    ),
    Detector(
        "ip",
        r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
        re.compile(
            rf"(?<![\w.])(?P<no>(?i:\b(?:version|release|ver|build|section|chapter|EC))\.?[ ])?"
            rf"{_IPV4}(?:\.{_IPV4}){{3}}(?![\w]|\.[0-9])"
        ),
        lambda m: None if m["no"] else m.span(),
        starts=r"(?i)\b(?:(?:version|release|ver|build|section|chapter|EC)\.? )?"
        r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
    ),
    # RFC 4291.
    Detector(
        "ip",
        "[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:|::[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]"
        "|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}::?[0-9A-Fa-f]",
        re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"),
        _ipv6,
        starts=r"(?:\b[0-9A-Fa-f]{1,4})?:[0-9A-Fa-f]{0,4}:",
    ),
    # ITU-T E.164 with a plus or 00, and the (0) that Europeans write.
    Detector(
        "phone",
        r"(?:\B\+|\b00)[1-9][^A-Za-z+=*]{6}",
        re.compile(
            r"(?<![\w.+])(?<![0-9][ -])"
            rf"(?P<v>(?:\+[1-9][0-9]{{0,13}}|00[1-9][0-9]{{0,2}}(?={_SEP}))"
            rf"(?:{_SEP}?\([0-9]{{1,4}}\){_SEP}?[0-9]{{1,12}})?(?:{_SEP}[0-9]{{1,12}}){{0,6}}"
            rf"{_EXTENSION})(?![\w])(?!\.[0-9])"
        ),
        _phone,
    ),
    # North American Numbering Plan: three groups, area code from 2.
    Detector(
        "phone",
        r"(?:\b1[ .-])?(?:\(|\b)[2-9][0-9]{2}\)?[ .\x{2010}-\x{2013}-]{0,2}[0-9]{3}"
        r"[ .\x{2010}-\x{2013}-][0-9]{4}",
        re.compile(
            r"(?<![\w.,/$£€%*+-])(?<![0-9] )(?P<v>(?:1[ .-])?(?:\([2-9][0-9]{2}\)[ ]?"
            r"|[2-9][0-9]{2}[ .\u2010-\u2013-])[0-9]{3}[ .\u2010-\u2013-][0-9]{4}"
            rf"{_EXTENSION})(?![\w])(?![.,/*+=-][0-9])"
        ),
        _phone,
    ),
    # National numbers with a trunk zero, in three groups or more.
    Detector(
        "phone",
        r"\(?\b0[0-9]{1,4}\)?[ .-][0-9]{2,4}[ .-][0-9]{2,4}",
        re.compile(
            r"(?<![\w.,(-])(?<![0-9] )(?P<v>\(?0[1-9][0-9]{0,3}\)?([ .-])[0-9]{2,4}"
            r"(?:\2[0-9]{2,4}){1,4})(?![\w])(?![.,-][0-9])"
        ),
        _trunk_phone,
    ),
    # Anything grouped like a number after or before a word such as call, text, fax.
    Detector(
        "phone",
        rf"(?i)\b(?:{_PHONE_CUE})\b[^0-9\[\]]{{0,31}}[0-9]{{2,5}}\)?[^0-9A-Za-z$%]{{1,3}}[0-9]{{2}}",
        re.compile(
            rf"(?i:\b(?:{_PHONE_CUE})\b)[^0-9\[\]$£€#]{{0,30}}?(?<![0-9.,])"
            rf"(?P<v>{_GROUPED}{_EXTENSION})(?![\w%=*/+])(?![.,][0-9])"
        ),
        _phone,
    ),
    Detector(
        "phone",
        rf"(?i)\b(?:{_STRONG_PHONE_CUE})\b[^0-9\[\]]{{0,16}}[0-9]{{7}}",
        re.compile(
            rf"(?i:\b(?:{_STRONG_PHONE_CUE})\b)(?:[ \t]*(?:number|no\.?|is|at|[#:.=\n]))*[ \t]*"
            rf"(?P<v>[0-9]{{7,15}}{_EXTENSION})(?![\w%])(?![.,][0-9])"
        ),
        _phone,
    ),
    Detector(
        "phone",
        r"(?i)[0-9]{2}\)?[ \t-]{1,2}\(?(?:office|fax|mobile|cell|home|work|desk)\b",
        re.compile(
            rf"(?<![\w.-])(?<![0-9][ ,])(?P<v>{_GROUPED}|[0-9]{{7,15}})"
            r"[ \t-]{1,2}\(?(?i:office|fax|mobile|cell|home|work|desk)\b"
        ),
        _phone,
        starts=r"(?i)[0-9(][0-9() \t.\x{a0}\x{2010}\x{2011}\x{2013}-]{5,60}"
        r"(?:office|fax|mobile|cell|home|work|desk)\b",
    ),
    # RFC 3986, without closing punctuation.
    Detector(
        "url",
        r"(?i)(?:https?|ftp)://|\bwww\.",
        re.compile(r"(?i)\b(?:(?:https?|ftp)://|www\.)[^\s<>\"\[\]{}|\\^`]{2,2000}"),
        _url,
    ),
    # Bare domains under the top-level domains that are no English words or file endings.
    Detector(
        "url",
        r"[A-Za-z0-9]\.(?:com|org|net|edu|gov|info|biz|io|eu|uk|de|fr|nl|ch|au|ca|jp|cn|ru|br)\b",
        re.compile(
            r"(?<![\w@.-])(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}"
            r"(?:com|org|net|edu|gov|info|biz|io|eu|uk|de|fr|nl|ch|au|ca|jp|cn|ru|br)"
            r"(?![\w@-]|\.[A-Za-z0-9])(?:/[^\s<>\"\[\]{}|\\^`]*)?"
        ),
        _url,
        starts=r"\b(?:[A-Za-z0-9-]{1,63}\.){1,6}"
        r"(?:com|org|net|edu|gov|info|biz|io|eu|uk|de|fr|nl|ch|au|ca|jp|cn|ru|br)\b",
    ),
)
