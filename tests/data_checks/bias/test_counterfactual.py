from data_checks.bias.counterfactual import Twins
from data_checks.bias.lexicon import load_lexicon

FEMALE, MALE = ("sex", "female"), ("sex", "male")


def coverage(*rows):
    twins = Twins(load_lexicon(None))
    for text, group in rows:
        twins.add(group[0], [text], [group])
    return twins.coverage()


def test_a_swapped_twin_is_found_whatever_its_form():
    found = coverage(
        ("She told her mother that the bag was hers.", FEMALE),
        ("HE told  his father that the bag was his", MALE),
        ("He told his father nothing.", MALE),
    )
    assert found[FEMALE] == (1, 1)
    assert found[MALE] == (2, 1)


def test_the_same_group_or_another_text_is_no_twin():
    found = coverage(
        ("A woman sleeps.", FEMALE),
        ("A woman sleeps.", FEMALE),
        ("A man wakes.", MALE),
        ("A lady sleeps.", FEMALE),
    )
    assert found[FEMALE] == (3, 0)
    assert found[MALE] == (1, 0)


def test_dimensions_are_apart_and_groups_without_counterparts_are_left_out():
    found = coverage(
        ("A Muslim man.", ("religion", "muslim")),
        ("A Hindu man.", ("religion", "hindu")),
        ("A black man.", ("ethnicity", "black")),
        ("A child.", ("age", "child")),
        ("They are intersex.", ("sex", "nonbinary")),
    )
    assert found["religion", "muslim"] == found["religion", "hindu"] == (1, 1)
    assert found["ethnicity", "black"] == (1, 0)
    assert found["ethnicity", "white"] == (0, 0)
    assert ("age", "child") not in found
    assert ("sex", "nonbinary") not in found
