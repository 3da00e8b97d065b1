from __future__ import annotations

import socket
from pathlib import Path

import evaluate
import pytest

from sft_core.evaluation.metrics import ChrF, ExactMatch, RougeL, score_texts


def test_exact_match_ignores_white_space_only() -> None:
    result = ExactMatch().compute(
        predictions=[" urgent\n\nreferral ", "Urgent", "urgent.", ""],
        references=["urgent referral", "urgent", "urgent", ""],
    )
    # equal after collapsing; case differs; punctuation differs; both empty: 2 of 4
    assert result == {"exact_match": 0.5, "scores": [1.0, 0.0, 0.0, 1.0]}


def test_rouge_l_by_hand() -> None:
    result = RougeL().compute(
        predictions=["the cat sat on the mat", "dog", ""],
        references=["the cat lay on a mat", "cat", "cat"],
    )
    # LCS: the cat on mat = 4 of 6 words on both sides, so P = R = F = 4/6
    assert result["scores"] == pytest.approx([4 / 6, 0.0, 0.0])
    assert result["rouge_l"] == pytest.approx(4 / 18)


def test_chrf_by_hand() -> None:
    result = ChrF().compute(predictions=["ab", "abc", "x"], references=["ab", "abd", "y"])
    # "abc" against "abd": 1-grams 2 of 3, 2-grams (ab, bc against ab, bd) 1 of 2, 3-grams 0 of 1;
    # P = R = F2 for each order: 2/3, 1/2, 0; their mean is 7/18
    assert result["scores"] == pytest.approx([1.0, 7 / 18, 0.0])


def test_metrics_are_evaluate_modules_that_can_be_combined() -> None:
    combined = evaluate.combine([ExactMatch(), RougeL()])
    result = combined.compute(predictions=["a b"], references=["a b"])
    assert (result["exact_match"], result["rouge_l"]) == (1.0, 1.0)


def test_lengths_must_agree_and_no_items_is_an_error() -> None:
    with pytest.raises(ValueError, match="Mismatch"):
        ExactMatch().compute(predictions=["a"], references=["a", "b"])
    with pytest.raises(ValueError, match="no items"):
        ExactMatch().compute(predictions=[], references=[])


def test_all_metrics_score_every_item() -> None:
    scores = score_texts(["a b", "c"], ["a b", "d"])
    assert scores == {"exact_match": [1.0, 0.0], "rouge_l": [1.0, 0.0], "chrf": [1.0, 0.0]}


def test_nothing_is_written_and_no_network_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    score_texts(["a"], ["a"])
    assert list(tmp_path.rglob("*")) == []
