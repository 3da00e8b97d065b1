import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_checks.overlap.splitting import split_of
from sft_core.config import SplitConfig

NAMES = [f"cluster-{k}" for k in range(20_000)]


def test_shares_are_those_of_the_config():
    config = SplitConfig(validation_rate=0.05, test_rate=0.1)
    splits = [split_of(name, config) for name in NAMES]
    # Standard deviations of the shares: sqrt(0.05 * 0.95 / 20,000) = 0.0015 and 0.0021.
    assert splits.count("validation") / len(NAMES) == pytest.approx(0.05, abs=0.006)
    assert splits.count("test") / len(NAMES) == pytest.approx(0.1, abs=0.008)


def test_another_salt_holds_out_other_clusters():
    tests = [
        {n for n in NAMES if split_of(n, SplitConfig(test_rate=0.1, salt=salt)) == "test"}
        for salt in ("a", "b")
    ]
    # Independent draws share 10 % of a 10 % sample: 200 of 20,000, standard deviation 14.
    assert len(tests[0] & tests[1]) == pytest.approx(200, abs=60)


def test_no_validation_where_its_rate_is_zero():
    splits = {split_of(name, SplitConfig(validation_rate=0.0, test_rate=0.5)) for name in NAMES}
    assert splits == {"train", "test"}


@given(st.text(), st.floats(0.01, 0.5), st.floats(0.0, 0.5), st.floats(0.0, 0.5))
def test_another_validation_rate_moves_no_row_into_or_out_of_the_test(name, test, first, second):
    splits = [
        split_of(name, SplitConfig(test_rate=test, validation_rate=rate))
        for rate in (first, second)
    ]
    assert (splits[0] == "test") == (splits[1] == "test")
