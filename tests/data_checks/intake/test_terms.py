import hashlib

import pytest

from data_checks.intake.terms import Origin, Terms, read_erasure_list, subject_pseudonym
from sft_core.config import TermsConfig
from sft_core.errors import DataError

KEY = b"k" * 32
ID = "ab" * 32


def judge(config, erased=frozenset(), **origin):
    row = {"row": 3, "row_id": ID, "licence": "MIT", "consent": "given", "subject": ""} | origin
    decision = Terms(config, erased).judge(Origin(**row))
    return decision and (decision.row, decision.action, decision.reason, decision.evidence)


@pytest.mark.parametrize(
    ("terms", "origin", "expected"),
    [
        ({}, {}, None),
        ({}, {"licence": "unknown"}, None),
        ({}, {"consent": "Not Needed"}, None),
        ({}, {"consent": "unknown"}, (3, "dropped", "no_consent", "unknown")),
        ({"allowed_licences": ["mit", "CC0-1.0"]}, {}, None),
        (
            {"allowed_licences": ["CC0-1.0"]},
            {},
            (3, "dropped", "licence_not_allowed", "MIT"),
        ),
        ({"allowed_licences": []}, {}, (3, "dropped", "licence_not_allowed", "MIT")),
        ({"allowed_consent": ["unknown"]}, {"consent": "unknown"}, None),
    ],
)
def test_a_row_is_used_on_allowed_terms_only(terms, origin, expected):
    assert judge(TermsConfig(**terms), **origin) == expected


def test_erasure_comes_before_all_other_reasons():
    for erased in (ID, "person"):
        found = judge(TermsConfig(), frozenset([erased]), subject="person", consent="unknown")
        assert found == (3, "dropped", "erased", "erasure_list")


def test_a_row_without_a_subject_is_not_erased_by_an_empty_entry(tmp_path):
    path = tmp_path / "erase.txt"
    path.write_text("\n  \n# a comment\n")
    assert read_erasure_list(str(path), KEY) == frozenset()


def test_the_list_holds_row_ids_and_pseudonyms_and_no_name(tmp_path):
    path = tmp_path / "erase.txt"
    path.write_text(f"\ufeff# asked on 2026-03-01\n{ID}\n MRN-0042 \n", encoding="utf-8")
    erased = read_erasure_list(str(path), KEY)
    assert erased == {ID, subject_pseudonym("MRN-0042", KEY)}
    assert not any("MRN" in entry for entry in erased)


def test_pseudonyms_depend_on_the_key_and_are_no_plain_hash():
    one, other = subject_pseudonym("MRN-0042", KEY), subject_pseudonym("MRN-0042", b"x" * 32)
    assert one != other
    assert one == subject_pseudonym(" MRN-0042 ", KEY)
    assert not hashlib.sha256(b"subject:MRN-0042").hexdigest().startswith(one)
    assert subject_pseudonym(None, KEY) == subject_pseudonym("  ", KEY) == ""


def test_entries_that_no_row_matched_are_known():
    terms = Terms(TermsConfig(), frozenset([ID, "nobody"]))
    terms.judge(Origin(0, ID, "MIT", "given", ""))
    assert terms.matched == {ID}
    assert terms.num_dropped == {"erased": 1}


def test_a_licence_from_a_column_that_is_no_name_is_not_quoted():
    secret = "Jane Roe, 12 High Street, born 1950-01-01, patient"
    evidence = judge(TermsConfig(allowed_licences=["MIT"]), licence=secret)[3]
    assert evidence.startswith("sha256=")
    assert "Jane" not in evidence


def test_a_list_that_cannot_be_read_stops_the_run(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    for name in ("latin", "missing"):
        with pytest.raises(DataError, match=r"terms\.erasure_list"):
            read_erasure_list(str(tmp_path / name), KEY)
