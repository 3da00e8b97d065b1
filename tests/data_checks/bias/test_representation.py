import pytest

from data_checks.bias.lexicon import Lexicon, Reference, load_lexicon
from data_checks.bias.representation import (
    Mentions,
    declared_references,
    shares_against_references,
)
from sft_core.config import BiasConfig
from sft_core.errors import ConfigError

FEMALE, MALE, CHILD = ("sex", "female"), ("sex", "male"), ("age", "child")
HALVES = Reference(source="census", shares={"female": 0.5, "male": 0.5})


def test_exclusive_mentions_are_counted_by_dimension():
    mentions = Mentions((FEMALE, MALE, CHILD))
    assert mentions.add({FEMALE}, set()) == [FEMALE]
    assert mentions.add({FEMALE, MALE, CHILD}, set()) == [CHILD]
    assert mentions.add(set(), {MALE}) == []
    assert sorted(mentions.add({MALE, CHILD}, set())) == [CHILD, MALE]
    assert mentions.table().rows == (
        ("sex", "female", 2, 0.5, 1, 0),
        ("sex", "male", 2, 0.5, 1, 1),
        ("age", "child", 2, 0.5, 2, 0),
    )
    assert mentions.metrics()["mention_rate_age_child"] == 0.5
    assert Mentions((FEMALE,)).metrics()["mention_rate_sex_female"] == 0.0


def test_shares_by_hand():
    # 1 woman and 3 men: 0, 1, 3 or 4 women of 4 are no likelier than 1: (1 + 4 + 4 + 1) / 16.
    compared = shares_against_references({FEMALE: 1, MALE: 3, CHILD: 50}, {"sex": HALVES}, 4)
    assert [each.key for each in compared] == [
        ("sex", "female", "census"),
        ("sex", "male", "census"),
    ]
    for each, share in zip(compared, (0.25, 0.75), strict=True):
        assert (each.value, each.other) == (share, 0.5)
        assert each.p == pytest.approx(10 / 16)
        # (2.241 + 0.842) * sqrt(.25 / 4) for two comparisons
        assert each.detectable == pytest.approx(0.7708, abs=1e-3)
    assert shares_against_references({FEMALE: 1, MALE: 2}, {"sex": HALVES}, 4) == []


def test_nothing_is_compared_without_a_declared_reference():
    assert declared_references(load_lexicon(None), BiasConfig()) == {}


def test_the_config_goes_before_the_lexicon():
    values = load_lexicon(None).model_dump()
    lexicon = Lexicon.model_validate({**values, "references": {"sex": HALVES}})
    assert declared_references(lexicon, BiasConfig()) == {"sex": HALVES}
    config = BiasConfig(references={"sex": "equal"})
    shares = declared_references(lexicon, config)["sex"].shares
    assert shares == pytest.approx({"female": 1 / 3, "male": 1 / 3, "nonbinary": 1 / 3})


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ({"sex": {"women": 0.5, "male": 0.5}}, r"bias\.references\.sex: no group women"),
        ({"gender": "equal"}, r"bias\.references\.gender: no dimension gender"),
        ({"gender": {"a": 0.5, "b": 0.5}}, r"bias\.references\.gender: no dimension gender"),
    ],
)
def test_references_must_name_groups_that_are_there(references, message):
    with pytest.raises(ConfigError, match=message):
        declared_references(load_lexicon(None), BiasConfig(references=references))


@pytest.mark.parametrize(
    "shares", [{}, {"female": 1.0}, {"female": 0.5, "male": 0.6}, {"female": 0.5}]
)
def test_shares_must_sum_to_one(shares):
    with pytest.raises(ValueError, match=r"sum to 1|less than 1"):
        BiasConfig(references={"sex": shares})
