import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from data_checks.association import (
    detectable_difference,
    holm,
    mean_difference_p,
    rate_difference_p,
    top_words,
    weighted_log_odds,
)


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
    # (1.960 + 0.842) * sqrt(.5 * .5 * 2 / 100) = 2.802 * 0.0707
    assert detectable_difference(0.5, 100, 100, 1) == pytest.approx(0.198, abs=1e-3)
    assert detectable_difference(0.5, 100, 100, 10) > 0.198
    assert detectable_difference(0.0, 100, 100, 1) == 0.0


def test_weighted_log_odds_by_hand():
    # 10 words on each side, so the prior of a word is (1000 / 20) times its count on both sides.
    here, elsewhere = Counter(a=8, b=2), Counter(a=2, b=8)
    # a here: 8 + 500 = 508 of 1010; elsewhere: 2 + 500 = 502 of 1010.
    delta = math.log((508 / 502) / (502 / 508))
    z = delta / math.sqrt(1 / 508 + 1 / 502)
    assert weighted_log_odds(here, elsewhere)["a"] == pytest.approx((delta, z))
    assert weighted_log_odds(here, elsewhere)["b"] == pytest.approx((-delta, -z))


def test_weighted_log_odds_at_the_edges():
    assert weighted_log_odds(Counter(), Counter(a=1)) == {}
    assert weighted_log_odds(Counter(a=1), Counter()) == {}
    assert weighted_log_odds(Counter(a=3), Counter(a=2)) == {}
    assert weighted_log_odds(Counter(a=3), Counter(b=2))["a"][0] > 0


def test_top_words_hide_rare_words_numbers_and_the_groups_own_terms():
    here = Counter({f"common{k}": 1000 for k in range(20)})
    elsewhere = Counter(here)
    here.update({"nurse": 400, "she": 900, "x1": 500, "s": 500, "rare": 4})
    elsewhere.update({"nurse": 40, "doctor": 300})
    found = top_words(here, elsewhere, {"she"}, 10)
    assert [score.word for score in found] == ["nurse"]
    assert (found[0].rows, found[0].rows_elsewhere) == (400, 40)
    assert top_words(Counter(), elsewhere, set(), 10) == []
    assert [s.word for s in top_words(elsewhere, here, set(), 1)] == ["doctor"]
