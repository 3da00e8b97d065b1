"""Check digits of national numbers, by examples that the states or their standards publish."""

import pytest

from data_checks.privacy import national_numbers as numbers

EXAMPLES = [
    (numbers.is_nhs, "9434765919"),
    (numbers.is_sin, "130692544"),
    (numbers.is_dni, "12345678Z"),
    (numbers.is_dni, "X1234567L"),
    (numbers.is_nir, "184127645108946"),
    (numbers.is_codice_fiscale, "RSSMRA85T10A562S"),
    (numbers.is_bsn, "111222333"),
    (numbers.is_pesel, "44051401359"),
    (numbers.is_aadhaar, "234123412346"),
    (numbers.is_cpf, "52998224725"),
    (numbers.is_tfn, "123456782"),
    (numbers.is_steuer_id, "86095742719"),
    (numbers.is_belgian, "85073003328"),
    (numbers.is_personnummer, "8112189876"),
    (numbers.is_hetu, "131052308T"),
    (numbers.is_ahv, "7569217076985"),
    (numbers.is_resident_id, "11010519491231002X"),
    (numbers.is_nif, "123456789"),
]


@pytest.mark.parametrize(("check", "number"), EXAMPLES)
def test_one_last_sign_is_right(check, number):
    signs = "0123456789" if number[-1].isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert [sign for sign in signs if check(number[:-1] + sign)] == [number[-1]]


@pytest.mark.parametrize(("check", "number"), EXAMPLES)
def test_a_wrong_length_is_wrong(check, number):
    assert not check(number + number[-1])


def test_the_check_digit_of_medicare_is_the_last_but_one():
    # 2x1 + 1x3 + 2x7 + 3x9 + 4x1 + 5x3 + 6x7 + 7x9 = 170, so 0
    assert numbers.is_medicare_au("2123456701")
    assert not numbers.is_medicare_au("2123456711")
