"""Check digits and number ranges: what tells an identifier from a mere number."""

from __future__ import annotations

# Source: ISO 13616 IBAN registry, length of the whole IBAN by country.
_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FI", "FK", "FO", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"), 20),
    **dict.fromkeys(("CH", "CR", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HN", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}

# Source: ISO/IEC 7812 issuer ranges as the networks publish them: first prefix, last prefix, and
# the lengths in use. Amex, Diners, Discover, JCB, Maestro, Mastercard, Mir, UnionPay, Visa.
_CARD_RANGES: tuple[tuple[str, str, range | tuple[int, ...]], ...] = (
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("300", "305", range(14, 20)),
    ("3095", "3095", range(14, 20)),
    ("36", "36", range(14, 20)),
    ("38", "39", range(14, 20)),
    ("6011", "6011", range(16, 20)),
    ("644", "659", range(16, 20)),
    ("3528", "3589", range(16, 20)),
    ("2131", "2131", (15,)),
    ("1800", "1800", (15,)),
    ("5018", "5018", range(12, 20)),
    ("5020", "5020", range(12, 20)),
    ("5038", "5038", range(12, 20)),
    ("5893", "5893", range(12, 20)),
    ("6304", "6304", range(12, 20)),
    ("6759", "6759", range(12, 20)),
    ("6761", "6763", range(12, 20)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("2200", "2204", range(16, 20)),
    ("62", "62", range(16, 20)),
    ("81", "81", range(16, 20)),
    ("4", "4", (13, 16, 19)),
)

_VIN_SIGNS = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
_VIN_VALUES = "012345678912345678123457923456789"
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def luhn(digits: str) -> bool:
    """Whether the last digit is right by ISO/IEC 7812-1 annex B (Luhn)."""
    odd = sum(map(int, digits[-1::-2]))
    even = sum(sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (odd + even) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether an issuer gives out numbers with this prefix and length, and the Luhn digit holds."""
    issued = any(
        first <= digits[: len(first)] <= last and len(digits) in lengths
        for first, last, lengths in _CARD_RANGES
    )
    return issued and luhn(digits)


def iban_length(prefix: str) -> int | None:
    """Length of an IBAN by its first letters; None where the country issues none."""
    return _IBAN_LENGTHS.get(prefix[:2].upper())


def is_iban(text: str) -> bool:
    """Whether ISO 7064 mod 97-10 holds; `text` has no spaces."""
    rotated = text[4:] + text[:4]
    return int("".join(str(int(c, 36)) for c in rotated)) % 97 == 1


def is_ssn(area: str, group: str, serial: str) -> bool:
    """Whether the US Social Security Administration could have issued the number.

    Source: SSA, "Social Security Number Randomization" (2011): areas 000, 666 and 900 to 999,
    group 00 and serial 0000 are never given out.
    """
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def is_npi(digits: str) -> bool:
    """US National Provider Identifier: 10 digits from 1 or 2, Luhn with the prefix 80840.

    Source: CMS, "Requirements for NPI and NPI check digit".
    """
    return len(digits) == 10 and digits[0] in "12" and luhn("80840" + digits)


def is_dea(code: str) -> bool:
    """US DEA registration: two characters, then six digits and their check digit.

    Source: 21 CFR 1301; the check is the last digit of (d1 + d3 + d5) + 2 (d2 + d4 + d6).
    """
    d = [int(c) for c in code[2:]]
    return len(d) == 7 and (d[0] + d[2] + d[4] + 2 * (d[1] + d[3] + d[5])) % 10 == d[6]


def is_vin(code: str) -> bool:
    """Vehicle identification number with the check digit that North America prescribes.

    Source: 49 CFR 565.15 (c): letters have values, place 9 is the weighted sum mod 11, 10 as X.
    """
    values = {c: int(v) for c, v in zip(_VIN_SIGNS, _VIN_VALUES, strict=True)}
    total = sum(values[c] * w for c, w in zip(code, _VIN_WEIGHTS, strict=True))
    return "0123456789X"[total % 11] == code[8]


def is_date(parts: tuple[int, int, int]) -> bool:
    """Whether three numbers can be year-month-day, day-month-year or month-day-year."""
    a, b, c = parts
    if a > 31:
        return 1000 <= a <= 2999 and 1 <= b <= 12 and 1 <= c <= 31
    year = 1000 <= c <= 2999 or c <= 99
    return year and 1 <= min(a, b) <= 12 and 1 <= max(a, b) <= 31
