"""What holds over the checks that compare rows, run one after the other as the stages run them."""

from collections import Counter

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_checks.overlap.contamination import find_contaminated
from data_checks.overlap.exact_duplicates import find_exact_duplicates
from data_checks.overlap.near_duplicates import find_near_duplicates
from data_checks.overlap.splitting import split_of
from sft_core.config import SplitConfig
from sft_core.records import Record, row_id

PASSAGES = [" ".join(f"{letter}{k}" for k in range(30)) for letter in "abcd"]
DUPLICATE = {"exact_duplicate", "near_duplicate"}
SURVIVED = {"train", "validation", "test"}

property_of_rows = settings(deadline=None, max_examples=25)


@st.composite
def texts(draw):
    """A passage: as it is, in capitals, cut, with words changed, or with another one behind it."""
    words = draw(st.sampled_from(PASSAGES)).split()
    for place in draw(st.lists(st.integers(0, 29), max_size=4)):
        words[place] = draw(st.sampled_from("xyz"))
    words = words[draw(st.integers(0, 3)) : draw(st.sampled_from([30, 30, 28, 20, 8, 0]))]
    text = " ".join(words + draw(st.sampled_from(["", "", *PASSAGES])).split())
    return text.upper() if draw(st.booleans()) else text


def numbered(prompts, start=0):
    """Records with row numbers in order; equal prompts have one row_id."""
    records = []
    for row, prompt in enumerate(prompts, start):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "yes"}]
        records.append(Record(row, row_id(messages, {}), messages))
    return records


rows = st.lists(texts(), max_size=16).map(numbered)
kept_rows = st.sampled_from(["earliest", "longest"])
configs = st.builds(
    SplitConfig,
    salt=st.text("ab", max_size=4),
    test_rate=st.just(0.3),
    validation_rate=st.just(0.2),
)


def clusters(records, kept_row):
    """Places in clusters of the rows that are no exact duplicates, and each row's cluster name."""
    exact = find_exact_duplicates(records)
    distinct = [r for r in records if r.row not in exact]
    members = find_near_duplicates(distinct, 0.8, kept_row).members
    ids = {r.row: r.row_id for r in records}
    names = {r.row: ids[members[r.row].first] if r.row in members else r.row_id for r in distinct}
    return exact, members, names


def fates(records, config, kept_row="earliest"):
    """What becomes of each row: a split, or the reason why it is dropped. Order of the stages."""
    exact, members, names = clusters(records, kept_row)
    fate = dict.fromkeys(exact, "exact_duplicate")
    for row, name in names.items():
        stays = row not in members or members[row].kept == row
        fate[row] = split_of(name, config) if stays else "near_duplicate"
    train = [r for r in records if fate[r.row] == "train"]
    held_out = [(str(r.row), r.text()) for r in records if fate[r.row] in ("validation", "test")]
    judged = find_contaminated(train, held_out, 0.5, 0.5)
    return fate | {record.row: "contaminated" for record, leaks in judged if leaks}


def survivors(records, fate):
    return [r for r in records if fate[r.row] in SURVIVED]


def test_the_rows_here_meet_every_fate():
    """The strategy makes what the properties are about."""
    seen = Counter()

    @given(rows, configs)
    @settings(deadline=None, max_examples=40, derandomize=True, database=None)
    def collect(records, config):
        seen.update(fates(records, config).values())

    collect()
    assert set(seen) == {*SURVIVED, *DUPLICATE, "contaminated"}


@given(rows, configs, kept_rows)
@property_of_rows
def test_every_row_has_one_fate_and_none_is_lost(records, config, kept_row):
    exact, members, _ = clusters(records, kept_row)
    assert not set(exact) & set(members)
    fate = fates(records, config, kept_row)
    assert sorted(fate) == [r.row for r in records]
    near = {row for row, member in members.items() if member.kept != row}
    contaminated = [row for row, reason in fate.items() if reason == "contaminated"]
    num_dropped = len(exact) + len(near) + len(contaminated)
    assert len(survivors(records, fate)) + num_dropped == len(records)


@given(rows, configs, kept_rows, st.randoms(use_true_random=False))
@property_of_rows
def test_the_order_in_which_rows_come_does_not_matter(records, config, kept_row, rng):
    """Rows carry their numbers along: it is these that say which row is the earliest."""
    shuffled = rng.sample(records, len(records))
    assert fates(shuffled, config, kept_row) == fates(records, config, kept_row)


@given(rows, configs)
@property_of_rows
def test_what_survives_survives_again(records, config):
    fate = fates(records, config)
    kept = survivors(records, fate)
    assert fates(kept, config) == {r.row: fate[r.row] for r in kept}


@given(rows, configs)
@property_of_rows
def test_no_duplicate_is_left_where_the_longest_stays(records, config):
    """The longest row goes by the name of an earlier one that is gone, so its split may change."""
    kept = survivors(records, fates(records, config, "longest"))
    exact, members, _ = clusters(kept, "longest")
    assert not exact
    assert not members


@given(rows, configs)
@property_of_rows
def test_no_cluster_straddles_two_splits(records, config):
    """Also where near-duplicates are kept: all go by the name of the first row."""
    _, members, names = clusters(records, "earliest")
    for row, member in members.items():
        assert split_of(names[row], config) == split_of(names[member.via], config)
        assert split_of(names[row], config) == split_of(names[member.first], config)


@given(rows, st.lists(texts(), max_size=8), configs)
@property_of_rows
def test_appended_rows_move_no_row_to_another_split(records, more, config):
    before = fates(records, config)
    after = fates(records + numbered(more, len(records)), config)
    for row, old in before.items():
        if old in DUPLICATE:
            assert after[row] in DUPLICATE
        elif old in ("validation", "test"):  # a new row can join its cluster to an earlier one
            assert after[row] in (old, "near_duplicate")
        else:
            assert after[row] in ("train", "contaminated", "near_duplicate")


@given(rows, st.lists(texts(), max_size=8), configs)
@property_of_rows
def test_where_the_longest_stays_a_row_moves_only_with_its_cluster(records, more, config):
    grown = records + numbered(more, len(records))
    before, after = fates(records, config, "longest"), fates(grown, config, "longest")
    _, _, old_names = clusters(records, "longest")
    _, _, new_names = clusters(grown, "longest")
    for row in (row for row in before if {before[row], after[row]} <= SURVIVED):
        assert before[row] == after[row] or old_names[row] != new_names[row]


@given(rows, configs)
@property_of_rows
def test_no_training_row_holds_half_of_a_held_out_row(records, config):
    """Counted with plain sets: among up to 10 held-out rows no 3-gram is boilerplate."""

    def grams(record):
        words = record.text().lower().split()
        return {tuple(words[k : k + 3]) for k in range(len(words) - 2)}

    fate = fates(records, config)
    held_out = [grams(r) for r in records if fate[r.row] in ("validation", "test")]
    assume(len(held_out) <= 10)
    for record in (r for r in records if fate[r.row] == "train"):
        for item in held_out:
            assert len(item) < 13 or len(grams(record) & item) < 0.5 * len(item)
