"""Check digits, by published examples or with the sum in a comment."""

from data_checks.privacy.check_digits import (
    is_card,
    is_date,
    is_dea,
    is_iban,
    is_npi,
    is_ssn,
    is_vin,
    luhn,
)


def test_luhn_and_cards():
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert is_card("4111111111111111")
    assert not is_card("4111111111111112")
    assert not is_card("9111111111111116")  # Luhn holds, no issuer


def test_iban():
    assert is_iban("GB82WEST12345698765432")
    assert not is_iban("GB82WEST12345698765433")


def test_ssn_ranges():
    assert is_ssn("899", "01", "0001")
    assert not is_ssn("666", "01", "0001")
    assert not is_ssn("900", "01", "0001")
    assert not is_ssn("123", "00", "0001")
    assert not is_ssn("123", "01", "0000")


def test_registers():
    assert is_npi("1234567893")
    assert not is_npi("1234567890")
    # (1 + 3 + 5) + 2 (2 + 4 + 6) = 33
    assert is_dea("AB1234563")


def test_vin():
    assert is_vin("1M8GDM9AXKP042788")  # the example of 49 CFR 565
    assert not is_vin("1M8GDM9AYKP042788".replace("Y", "1"))


def test_date_ranges():
    assert is_date((2024, 2, 29))
    assert is_date((31, 12, 2024))
    assert is_date((12, 31, 24))
    assert not is_date((32, 1, 2024))
    assert not is_date((2024, 13, 1))
