from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from data_checks.bias.significance import (
    Comparison,
    detectable_difference,
    disparity,
    holm,
    mean_difference_p,
    rate_difference_p,
    share_p,
)


def test_share_by_hand():
    # 4 of 4 at one half: 4 of 4 and 0 of 4 are no likelier, 1/16 each.
    assert share_p(4, 4, 0.5) == pytest.approx(2 / 16)
    assert share_p(2, 4, 0.5) == pytest.approx(1.0)
    # 2 of 2 at one third: 1/9 for two, and none that is less likely (0: 4/9, 1: 4/9).
    assert share_p(2, 2, 1 / 3) == pytest.approx(1 / 9)
    assert share_p(0, 0, 0.5) == 1.0


def test_rate_difference_by_hand():
    # 2 of 2 against 0 of 2: of the C(4, 2) = 6 ways to deal two labelled rows to four places, the
    # first group gets both or none in 2.
    assert rate_difference_p(2, 2, 0, 2) == pytest.approx(2 / 6)
    assert rate_difference_p(1, 2, 1, 2) == pytest.approx(1.0)
    # 3 of 3 against 1 of 5: C(8, 4) = 70 ways to place 4 labels. The difference is 0.8. With k in
    # the first group it is |k/3 - (4-k)/5|: 0.8, 0.27, 0.27, 0.8 for k = 0, 1, 2, 3.
    # k = 0: C(5, 4) = 5 ways, k = 3: C(5, 1) = 5 ways, so 10 / 70.
    assert rate_difference_p(3, 3, 1, 5) == pytest.approx(10 / 70)


def test_rate_difference_at_the_edges():
    assert rate_difference_p(0, 0, 3, 5) == 1.0
    assert rate_difference_p(0, 5, 0, 5) == pytest.approx(1.0)
    assert rate_difference_p(5, 5, 5, 5) == pytest.approx(1.0)
    assert rate_difference_p(375, 750, 188, 750) < 1e-20


def test_mean_difference_agrees_with_all_permutations():
    a, b = [1, 2, 7, 9], [1, 3, 3, 2, 4]
    pooled = a + b
    observed = abs(sum(a) / 4 - sum(b) / 5)
    ways = list(combinations(range(9), 4))
    extreme = sum(
        abs(s / 4 - (sum(pooled) - s) / 5) >= observed - 1e-9
        for s in (sum(pooled[i] for i in way) for way in ways)
    )
    p = mean_difference_p(Counter(a), Counter(b), 40_000, np.random.default_rng(0))
    assert p == pytest.approx(extreme / len(ways), abs=0.01)


def test_both_ways_to_draw_permutations_have_the_same_law():
    few = {1: 3, 2: 4}, {1: 4, 2: 2}
    many = {1: 300, 2: 400}, {1: 370, 2: 330}
    for histograms, exact in (
        (few, rate_difference_p(4, 7, 2, 6)),
        (many, rate_difference_p(400, 700, 330, 700)),
    ):
        p = mean_difference_p(*histograms, 40_000, np.random.default_rng(0))
        assert p == pytest.approx(exact, abs=0.01)


def test_smallest_p_value_is_one_over_permutations_plus_one():
    a, b = {1: 50}, {100: 50}
    assert mean_difference_p(a, b, 999, np.random.default_rng(0)) == 1 / 1000
    assert mean_difference_p(a, {}, 999, np.random.default_rng(0)) == 1.0
    assert mean_difference_p({5: 9}, {5: 4}, 99, np.random.default_rng(0)) == 1.0


def test_holm_by_hand():
    # Sorted .01 .02 .03: times 3, 2, 1 = .03 .04 .03, made monotone .03 .04 .04.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_detectable_difference_by_hand():
    # (1.960 + 0.842) * sqrt(.25 * 2 / 100) = 2.802 * 0.0707
    assert detectable_difference(0.25, (100, 100), 1) == pytest.approx(0.198, abs=1e-3)
    # One sample: 2.802 * sqrt(.25 / 100)
    assert detectable_difference(0.25, (100,), 1) == pytest.approx(0.1401, abs=1e-3)
    assert detectable_difference(0.25, (100, 100), 10) > 0.198
    assert detectable_difference(0.0, (100, 100), 1) == 0.0


def test_what_would_be_detected_is_detected_four_times_in_five():
    rng = np.random.default_rng(0)
    difference = detectable_difference(0.25, (400, 400), 1)
    here = rng.binomial(400, 0.5 + difference / 2, 200).tolist()
    there = rng.binomial(400, 0.5 - difference / 2, 200).tolist()
    found = [rate_difference_p(a, 400, b, 400) <= 0.05 for a, b in zip(here, there, strict=True)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def test_disparity_is_the_largest_significant_difference():
    found = disparity(
        [
            Comparison(("small",), 0.5, 0.4, 0.001, 0.05),
            Comparison(("chance",), 0.9, 0.2, 0.4, 0.5),
        ],
        ("name",),
        ("here", "there"),
    )
    assert found.significant == pytest.approx(0.1)
    assert found.largest == pytest.approx(0.7)
    assert found.table.columns == (
        "name", "here", "there", "difference", "detectable difference", "p (Holm)"
    )  # fmt: skip
    assert [row[0] for row in found.table.rows] == ["small", "chance"]
    assert found.table.rows[0][-1] == pytest.approx(0.002)
    assert disparity([Comparison(("c",), 0.9, 0.2, 0.4, 0.5)], ("name",)).significant == 0.0
