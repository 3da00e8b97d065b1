"""Text metrics as Hugging Face `evaluate` modules that need neither the hub nor the disk.

`evaluate.load("rouge")` fetches code from the hub; these modules hold the code themselves and keep
their inputs in memory. Each returns its mean under its own name and, under `scores`, one score in
[0, 1] per item: intervals and tests pair the items of two models, so a corpus score alone is not
enough.
"""

from __future__ import annotations

from typing import Any

import evaluate
import numpy as np
from datasets import Features, Value
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF


def collapse(text: str) -> str:
    """The text without outer white space, and with each inner run of it as one space."""
    return " ".join(text.split())


class TextMetric(evaluate.Metric):
    """A metric over pairs of strings: `compute(predictions=[...], references=[...])`.

    Without items there is no mean: `compute` raises ValueError.
    """

    citation_text = ""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True, seed=0)

    def _build_data_dir(self) -> str:
        return ""  # upstream makes a cache folder in the user's home, even in memory

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation=self.citation_text,
            inputs_description="predictions and references: a list of strings each",
            features=Features({"predictions": Value("string"), "references": Value("string")}),
        )

    def _compute(
        self, *, predictions: list[str], references: list[str], **_: Any
    ) -> dict[str, Any]:
        scores = [self.score(p, r) for p, r in zip(predictions, references, strict=True)]
        if not scores:
            raise ValueError(f"{self.name}: no items to compare.")
        return {self.name: float(np.mean(scores)), "scores": scores}

    def score(self, prediction: str, reference: str) -> float:
        """Score of one item in [0, 1]."""
        raise NotImplementedError


class ExactMatch(TextMetric):
    """1 where prediction and reference are equal after `collapse`; case and punctuation count."""

    def score(self, prediction: str, reference: str) -> float:
        """1.0 or 0.0; two empty texts are equal."""
        return float(collapse(prediction) == collapse(reference))


class RougeL(TextMetric):
    """F-measure of the longest common subsequence of words, without stemming.

    `rouge_score` keeps only a-z and 0-9, so a text in another script has no words and scores 0.
    """

    citation_text = "Lin (2004), ROUGE: A Package for Automatic Evaluation of Summaries, section 3"

    def __init__(self) -> None:
        super().__init__()
        self._scorer = RougeScorer(["rougeL"], use_stemmer=False)

    def score(self, prediction: str, reference: str) -> float:
        """2 P R / (P + R), with P and R the share of words in the longest common subsequence.

        A side without words gives 0.
        """
        return float(self._scorer.score(reference, prediction)["rougeL"].fmeasure)


class ChrF(TextMetric):
    """Character 6-gram F2 of one item (sacrebleu's sentence chrF, effective order).

    The mean over items is not the corpus chrF, which pools the n-grams of all items.
    """

    citation_text = "Popovic (2015), chrF: character n-gram F-score for automatic MT evaluation"

    def __init__(self) -> None:
        super().__init__()
        self._chrf = CHRF()

    def score(self, prediction: str, reference: str) -> float:
        """Score of one item; a side without characters gives 0."""
        return float(self._chrf.sentence_score(prediction, [reference]).score) / 100.0


TEXT_METRICS: dict[str, type[TextMetric]] = {
    "exact_match": ExactMatch,
    "rouge_l": RougeL,
    "chrf": ChrF,
}


def score_texts(predictions: list[str], references: list[str]) -> dict[str, list[float]]:
    """Scores per item of every metric, by its name."""
    return {
        name: list(metric().compute(predictions=predictions, references=references)["scores"])
        for name, metric in TEXT_METRICS.items()
    }
