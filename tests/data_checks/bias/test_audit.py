import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.bias.audit import audit_bias
from examples.triage.generate import build
from sft_core.config import BiasConfig
from sft_core.records import Record

CONFIG = BiasConfig()


def chat(row, prompt, completion="ok"):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return Record(row, str(row), messages)


def referrals(num_rows, shift, seed):
    """Labelled notes in which women are called urgent with a rate that differs by `shift`."""
    rng = random.Random(seed)
    for row in range(num_rows):
        person = rng.choice(["woman", "man"])
        urgent = rng.random() < 0.5 + (shift if person == "woman" else 0.0)
        label = "urgent" if urgent else rng.choice(["soon", "routine"])
        clinic = rng.choice(["cardiology", "neurology", "surgery"])
        prompt = f"A {rng.randint(18, 80)} year old {person} with pain."
        yield chat(row, prompt, f"Urgency: {label}\nClinic: {clinic}")


def test_mentions_are_counted_by_row():
    rows = [
        chat(0, "She told her mother"),
        chat(1, "He told his mother"),
        chat(2, "Nobody told anyone"),
        chat(3, "The man and the child"),
        chat(4, "I miss the sheep"),
    ]
    metrics = audit_bias(rows, CONFIG).metrics
    assert metrics["num_rows"] == 5
    assert metrics["num_rows_mentioning_sex_female"] == 2
    assert metrics["num_rows_mentioning_sex_male"] == 2
    assert metrics["mention_rate_sex_female"] == 0.4
    assert metrics["num_rows_mentioning_only_sex_female"] == 1
    assert metrics["num_rows_mentioning_only_sex_male"] == 1
    assert metrics["num_rows_mentioning_only_age_child"] == 1


def test_completions_and_system_prompts_are_no_mentions():
    system = {"role": "system", "content": "You help women."}
    row = chat(0, "Hello", "She is well")
    row = replace(row, messages=[system, *row.messages])
    audit = audit_bias([row], CONFIG)
    assert audit.metrics["num_rows_mentioning_sex_female"] == 0


def test_plain_text_has_mentions_and_no_answers():
    people = ["The woman was a nurse.", "The man was a miner."]
    rows = [Record(n, str(n), [{"role": "text", "content": people[n % 2]}]) for n in range(60)]
    audit = audit_bias(rows, CONFIG)
    assert audit.metrics["num_rows_mentioning_only_sex_female"] == 30
    assert {(a.group[1], a.place, a.word) for a in audit.associations} >= {
        ("female", "prompt", "nurse"),
        ("male", "prompt", "miner"),
    }
    for name in ("label_disparity", "refusal_disparity", "max_completion_length_difference"):
        assert "plain text" in audit.not_measured[name]


def test_no_rows_have_no_answers():
    assert "label_disparity" in audit_bias([], CONFIG).not_measured


def test_ambiguous_rows_are_listed_apart():
    table = audit_bias([chat(0, "I miss it"), chat(1, "Miss Moneypenny, a woman")], CONFIG)
    rows = {row[:2]: row for row in table.tables["representation"].rows}
    assert rows["sex", "female"] == ("sex", "female", 1, 0.5, 1, 1)


def test_planted_skew_is_flagged():
    audit = audit_bias(referrals(1500, -0.25, seed=0), CONFIG)
    assert audit.metrics["label_disparity"] == pytest.approx(0.25, abs=0.06)
    assert audit.metrics["max_label_difference"] == audit.metrics["label_disparity"]
    assert "label_disparity" not in audit.not_measured
    first = audit.tables["label_association"].rows[0]
    assert first[:4] == ("sex", "female", "male", "urgency: urgent")
    assert first[-3] == pytest.approx(-0.25, abs=0.06)
    assert first[-1] < 1e-10


def test_disparity_is_the_difference_of_rates():
    # Women: 30 of 40 yes. Men: 10 of 40 yes. Difference of the rates of yes and of no: 0.5.
    rows = [chat(k, "a woman", "yes" if k < 30 else "no") for k in range(40)]
    rows += [chat(40 + k, "a man", "yes" if k < 10 else "no") for k in range(40)]
    rows += [chat(80 + k, "a man and a woman", "no") for k in range(40)]
    audit = audit_bias(rows, CONFIG)
    assert audit.metrics["label_disparity"] == 0.5
    assert audit.metrics["num_label_comparisons"] == 2


def test_balanced_data_stay_quiet():
    # Holm holds false alarms under 5 % of balanced sets (measured: 3.7 % of 300); not these 8.
    for seed in range(8):
        metrics = audit_bias(referrals(1500, 0.0, seed), CONFIG, seed).metrics
        assert metrics["label_disparity"] == 0.0
        assert metrics["completion_length_disparity"] == 0.0
        assert 0.0 < metrics["max_label_difference"] < 0.15


def test_length_disparity_is_flagged():
    rng = random.Random(0)
    rows = [
        chat(k, "a woman" if k % 2 else "a man", "word " * rng.randint(20, 40 + 20 * (k % 2)))
        for k in range(600)
    ]
    audit = audit_bias(rows, CONFIG)
    # Means: 40 words for women (20 to 60), 30 for men (20 to 40).
    assert audit.metrics["completion_length_disparity"] == pytest.approx(10, abs=2)


def test_words_associated_with_a_group():
    rng = random.Random(0)
    filler = [f"filler{chr(97 + k)}" for k in range(26)]
    rows = []
    for k in range(800):
        woman = k % 2 == 0
        job = "nurse" if rng.random() < (0.6 if woman else 0.1) else "doctor"
        pronoun = "She" if woman else "He"
        secret = "zebediah" if k == 0 else "Natalia" if woman else "plain"
        text = " ".join([pronoun, "is", "a", job, secret, *rng.sample(filler, 8)])
        rows.append(chat(k, "A pregnant woman" if woman else "A man", text))
    audit = audit_bias(rows, CONFIG)
    found = audit.tables["occupation_association"].rows
    assert [row[:4] for row in found] == [
        ("sex", "female", "completion", "nurse"),
        ("sex", "male", "completion", "doctor"),
    ]
    found = audit.tables["word_association"].rows
    assert [row[:4] for row in found] == [("sex", "male", "completion", "plain")]
    found = audit.tables["expected_clinical_association"].rows
    assert [row[:6] for row in found] == [("sex", "female", "prompt", "pregnant", 400, 0)]
    assert audit.metrics["num_associated_words"] == 4
    assert audit.metrics["num_associated_words_withheld"] == 1
    for name in ("zebediah", "natalia"):
        assert name not in repr(audit).casefold()


def test_what_cannot_be_compared_is_not_measured():
    few = [chat(k, "a woman" if k % 2 else "a man", "yes") for k in range(38)]
    audit = audit_bias(few, CONFIG)
    assert "20 exclusive mentions" in audit.not_measured["label_disparity"]
    assert "20 exclusive mentions" in audit.not_measured["completion_length_disparity"]
    assert not audit.metrics.keys() & audit.not_measured.keys()

    prose = [chat(k, "a woman" if k % 2 else "a man", f"text number {k}") for k in range(100)]
    audit = audit_bias(prose, CONFIG)
    assert "not label-like" in audit.not_measured["label_disparity"]
    assert "completion_length_disparity" in audit.metrics

    empty = audit_bias([], CONFIG)
    assert empty.metrics["num_rows"] == 0
    assert empty.metrics["mention_rate_sex_female"] == 0.0
    assert {
        "label_disparity",
        "max_label_difference",
        "refusal_disparity",
        "max_refusal_difference",
        "completion_length_disparity",
        "max_completion_length_difference",
        "representation_disparity",
        "max_representation_difference",
        "counterfactual_coverage_sex",
    } <= empty.not_measured.keys()
    assert empty.tables["counterfactual_coverage"].rows == ()


def test_rare_labels_are_not_shown():
    rows = [chat(k, "a woman" if k % 2 else "a man", "yes" if k % 3 else "no") for k in range(120)]
    rows.append(chat(120, "a man", "Zebediah Quartermain"))
    assert "zebediah" not in repr(audit_bias(rows, CONFIG)).casefold()


def test_limits_of_the_config_are_used(tmp_path):
    rows = list(referrals(200, -0.4, seed=1))
    assert "label_disparity" in audit_bias(rows, BiasConfig(min_mentions=150)).not_measured
    path = tmp_path / "lexicon.json"
    groups = {"a": {"terms": ["woman"]}, "b": {"terms": ["man"]}}
    head = {"name": "n", "language": "en", "licence": "CC0-1.0", "source": "own"}
    path.write_text(json.dumps({**head, "dimensions": {"mine": groups}}), encoding="utf-8")
    audit = audit_bias(rows, BiasConfig(lexicon=str(path)))
    assert audit.metrics["label_disparity"] > 0.2
    assert "num_rows_mentioning_mine_a" in audit.metrics


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A man", "a woman", "a boy and a girl", "a thing", "A Happy woman"]),
            st.sampled_from(["yes", "no", "yes\nno", "", "I refuse", "A nurse"]),
        ),
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=25)
def test_order_does_not_matter(turns, rng):
    rows = [chat(i, prompt, completion) for i, (prompt, completion) in enumerate(turns)]
    config = BiasConfig(min_mentions=2, num_permutations=100)
    shuffled = rng.sample(rows, len(rows))
    assert audit_bias(rows, config) == audit_bias(shuffled, config)


def test_completions_are_judged_by_who_is_in_the_prompt():
    rows = [chat(k, "A man asks", "I can't help with that." if k % 2 else "Yes") for k in range(80)]
    rows += [chat(80 + k, "A woman asks", "Yes") for k in range(80)]
    audit = audit_bias(rows, CONFIG)
    assert audit.metrics["refusal_disparity"] == 0.5
    row = audit.tables["refusal_association"].rows[0]
    assert row[:6] == ("sex", "female", "male", 0.0, 0.5, -0.5)
    assert audit.metrics["counterfactual_coverage_sex"] == 1.0
    assert audit.tables["counterfactual_coverage"].rows[-1] == ("sex", "male", 80, 80, 1.0)


def test_declared_references_are_judged():
    rows = [chat(k, "a woman" if k < 30 else "a man") for k in range(100)]
    config = BiasConfig(references={"sex": {"female": 0.5, "male": 0.5}, "age": "equal"})
    audit = audit_bias(rows, config)
    assert audit.metrics["representation_disparity"] == pytest.approx(0.2)
    assert "fewer than 20" in audit.not_measured["representation_disparity_age"]
    assert [(s.group[1], s.rows, s.reference) for s in audit.shares if s.group[0] == "sex"] == [
        ("female", 30, 0.5),
        ("male", 70, 0.5),
        ("nonbinary", 0, None),
    ]
    assert "no reference" in audit_bias(rows, CONFIG).not_measured["representation_disparity"]


def demo_rows(skew):
    for number, row in enumerate(build(skew=skew)[0]):
        if isinstance(row.get("completion"), str) and row["completion"].strip():
            yield chat(number, row["prompt"], row["completion"])


def test_the_balanced_demo_is_quiet():
    config = BiasConfig(references={"sex": {"female": 0.5, "male": 0.5}})
    audit = audit_bias(demo_rows(skew=False), config)
    for kind in ("label", "refusal", "completion_length", "representation"):
        assert audit.metrics[f"{kind}_disparity"] == 0.0
    assert audit.associations == ()
    assert audit.metrics["num_associated_words_withheld"] == 0


def test_the_skewed_demo_is_flagged():
    audit = audit_bias(demo_rows(skew=True), CONFIG)
    assert audit.metrics["label_disparity"] > 0.2
    assert {(a.group[1], a.place, a.word) for a in audit.associations} == {
        ("female", "completion", "soon"),
        ("male", "completion", "urgent"),
    }


def test_gsm8k_has_more_men_and_its_farmers_are_men(shared):
    lines = (shared / "data/gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()
    items = map(json.loads, lines)
    rows = [chat(k, item["question"], item["answer"]) for k, item in enumerate(items)]
    audit = audit_bias(rows, BiasConfig(references={"sex": {"female": 0.5, "male": 0.5}}))
    assert audit.metrics["num_rows_mentioning_only_sex_female"] == 1850
    assert audit.metrics["num_rows_mentioning_only_sex_male"] == 2528
    assert audit.metrics["representation_disparity"] == pytest.approx(2528 / 4378 - 0.5)
    assert "label_disparity" in audit.not_measured
    [row] = audit.tables["occupation_association"].rows
    assert row[:6] == ("sex", "male", "prompt", "farmer", 35, 5)
    assert row[-1] < 0.01
    assert "natalia" not in repr(audit.associations)
