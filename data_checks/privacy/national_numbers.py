"""Check digits of national identity, tax and health numbers, by the rule that each state publishes.

Every function takes letters and digits without separators, in capitals, and is false for a wrong
length.
"""

from __future__ import annotations

from collections.abc import Callable

from data_checks.privacy.check_digits import luhn

_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_HETU_SIGNS = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_CF_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (
            *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21),
            *(2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        ),
        strict=True,
    )
)
_VERHOEFF_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _weighted(digits: str, weights: tuple[int, ...]) -> int:
    """Sum of weight times digit, over as many digits as there are weights."""
    return sum(int(d) * w for d, w in zip(digits, weights, strict=False))


def is_nhs(digits: str) -> bool:
    """NHS number (United Kingdom). Source: NHS Data Dictionary, "NHS number"."""
    check = 11 - _weighted(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return len(digits) == 10 and check != 10 and check % 11 == int(digits[9])


def is_sin(digits: str) -> bool:
    """Social Insurance Number (Canada). Source: Employment and Social Development Canada."""
    return len(digits) == 9 and digits[0] not in "08" and luhn(digits)


def is_dni(code: str) -> bool:
    """DNI and NIE (Spain): the letter is the number mod 23. Source: Real Decreto 1553/2005."""
    number = code[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return len(code) == 9 and number.isdigit() and _DNI_LETTERS[int(number) % 23] == code[-1]


def is_nir(code: str) -> bool:
    """NIR (France): 97 minus the number mod 97; 2A and 2B are Corsica. Source: INSEE."""
    number = code[:13].replace("2A", "19").replace("2B", "18")
    return len(code) == 15 and number.isdigit() and 97 - int(number) % 97 == int(code[13:])


def is_codice_fiscale(code: str) -> bool:
    """Codice fiscale (Italy). Source: Decreto ministeriale 23 December 1976."""
    odd = sum(_CF_ODD[c] for c in code[:15:2])
    even = sum(int(c) if c.isdigit() else ord(c) - ord("A") for c in code[1:15:2])
    return len(code) == 16 and chr(ord("A") + (odd + even) % 26) == code[15]


def is_bsn(digits: str) -> bool:
    """BSN (Netherlands), the test of eleven. Source: RvIG, "Logisch ontwerp BSN"."""
    total = _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1))
    return len(digits) == 9 and int(digits) > 0 and total % 11 == 0


def is_pesel(digits: str) -> bool:
    """PESEL (Poland). Source: Ministry of Digital Affairs, structure of the PESEL number."""
    total = _weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1))
    return len(digits) == 11 and total % 10 == 0


def is_aadhaar(digits: str) -> bool:
    """Aadhaar (India): Verhoeff's check digit. Source: UIDAI; Verhoeff (1969)."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(place % 8):
            value = _VERHOEFF_PERMUTATION[value]
        check = _dihedral(check, value)
    return len(digits) == 12 and digits[0] not in "01" and check == 0


def _dihedral(a: int, b: int) -> int:
    """Product in D5: 0 to 4 turn, 5 to 9 turn and mirror."""
    turn = (a + b) % 5 if a < 5 else (a - b) % 5
    return turn + 5 * ((a < 5) != (b < 5))


def is_cpf(digits: str) -> bool:
    """CPF (Brazil): two check digits. Source: Receita Federal."""
    first = 10 * _weighted(digits, tuple(range(10, 1, -1))) % 11 % 10
    second = 10 * _weighted(digits, tuple(range(11, 1, -1))) % 11 % 10
    return len(digits) == 11 and len(set(digits)) > 1 and digits[9:] == f"{first}{second}"


def is_tfn(digits: str) -> bool:
    """Tax File Number (Australia), 9 digits mod 11. Source: Australian Taxation Office."""
    return len(digits) == 9 and _weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def is_medicare_au(digits: str) -> bool:
    """Medicare card (Australia): 8 digits, check digit, issue. Source: METeOR 270101."""
    check = _weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9)) % 10
    return len(digits) in (10, 11) and digits[0] in "23456" and check == int(digits[8])


def is_steuer_id(digits: str) -> bool:
    """Steuer-ID (Germany): ISO 7064 mod 11,10; one digit of the first ten comes more than once.

    Source: Bundeszentralamt für Steuern.
    """
    product = 10
    for digit in digits[:10]:
        total = (int(digit) + product) % 10 or 10
        product = 2 * total % 11
    distinct = len(set(digits[:10]))
    return len(digits) == 11 and distinct in (8, 9) and (11 - product) % 10 == int(digits[10])


def is_belgian(digits: str) -> bool:
    """National register number (Belgium): 97 minus the number mod 97, with a 2 before it for births
    from 2000. Source: Arrêté royal of 3 April 1984.
    """
    checks = {97 - int(century + digits[:9]) % 97 for century in ("", "2")}
    return len(digits) == 11 and int(digits[9:]) in checks


def is_personnummer(digits: str) -> bool:
    """Personnummer (Sweden): Luhn over ten digits. Source: Skatteverket SKV 704."""
    return len(digits) in (10, 12) and luhn(digits[-10:])


def is_hetu(code: str) -> bool:
    """HETU (Finland): nine digits mod 31; the sign of the century may be a letter.

    Source: Digital and Population Data Services Agency.
    """
    number = code[:6] + code[-4:-1]
    return len(code) in (10, 11) and number.isdigit() and _HETU_SIGNS[int(number) % 31] == code[-1]


def is_ahv(digits: str) -> bool:
    """AHV number (Switzerland): EAN-13 with the country 756. Source: ZAS/CdC."""
    return digits.startswith("756") and is_gs1(digits, 13)


def is_resident_id(code: str) -> bool:
    """Resident identity number (China): ISO 7064 mod 11-2. Source: GB 11643-1999."""
    total = sum(int(d) * (2 ** (17 - i) % 11) for i, d in enumerate(code[:17]))
    return len(code) == 18 and "10X98765432"[total % 11] == code[17]


def is_nif(digits: str) -> bool:
    """NIF (Portugal), 9 digits mod 11. Source: Decreto-Lei 14/2013."""
    rest = _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return len(digits) == 9 and (0 if rest < 2 else 11 - rest) == int(digits[8])


def is_gs1(digits: str, length: int) -> bool:
    """GS1 number with weights 3 and 1 from the right. Source: GS1 General Specifications 7.9."""
    total = sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(reversed(digits)))
    return len(digits) == length and total % 10 == 0


CUED: dict[str, tuple[str, Callable[[str], bool]]] = {
    "nhs": (r"NHS", is_nhs),
    "sin": (r"SIN|NAS|social insurance", is_sin),
    "bsn": (r"BSN|burgerservicenummer|sofinummer", is_bsn),
    "pesel": (r"PESEL", is_pesel),
    "aadhaar": (r"Aadhaa?r|UIDAI", is_aadhaar),
    "cpf": (r"CPF", is_cpf),
    "tfn": (r"TFN|tax file", is_tfn),
    "medicare": (r"Medicare", is_medicare_au),
    "steuer": (r"Steuer-?ID(?:NR)?|IdNr|Steuerliche Identifikationsnummer", is_steuer_id),
    "personnummer": (r"personnummer|personnr", is_personnummer),
    "nif": (r"NIF|contribuinte", is_nif),
}
"""Numbers of digits alone, which only their name before them tells: the name and the check."""

BARE: dict[str, tuple[str, Callable[[str], bool]]] = {
    "dni": (r"(?:[0-9]{8}|[XYZ]-?[0-9]{7})-?[A-Z]", is_dni),
    "nir": (
        r"[12][ ]?[0-9]{2}[ ]?(?:0[1-9]|1[0-2]|[2-9][0-9])[ ]?(?:[0-9]{2}|2[AB])[ ]?[0-9]{3}"
        r"[ ]?[0-9]{3}[ ]?[0-9]{2}",
        is_nir,
    ),
    "codice": (
        r"[A-Z]{6}[0-9L-NP-V]{2}[A-EHLMPR-T][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]",
        is_codice_fiscale,
    ),
    "cpf": (r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", is_cpf),
    "belgian": (r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}", is_belgian),
    "hetu": (r"[0-3][0-9][01][0-9]{3}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y]", is_hetu),
    "ahv": (r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}|756[0-9]{10}", is_ahv),
    "resident": (
        r"[1-9][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9]{4}[0-9X]",
        is_resident_id,
    ),
    # National Insurance number (United Kingdom): a format of its own, no check digit.
    "nino": (
        r"(?:[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z])[ ]?[0-9]{2}[ ]?[0-9]{2}[ ]?[0-9]{2}[ ]?[A-D]",
        lambda code: code[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"),
    ),
}
"""Numbers whose shape is telling without a name: the shape and the check."""
