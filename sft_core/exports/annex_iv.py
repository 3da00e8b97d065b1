"""The points of Annex IV of the EU AI Act, and what the record has to say to each.

A point is answered automatically, by artifacts that are named with their digests; or by people, who
sign for it in the config; or it does not apply, for a reason that somebody signs for; or it is
missing. What is answered is not thereby right, and nothing here claims that a system complies.

Source: Regulation (EU) 2024/1689, Annex IV (technical documentation, Article 11(1)); points are
told in our words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sft_core.config.judgement import AnnexPoint
from sft_core.documents.card import markdown_template
from sft_core.exports.ml_bom import render_ml_bom
from sft_core.reports import RunRecord

State = Literal["automatic", "human text", "not applicable", "MISSING"]
_BOM = "ml_bom"


@dataclass(frozen=True)
class Point:
    """What is asked, and the stages whose reports answer it; none where only people can."""

    asks: str
    stages: tuple[str, ...] = ()


POINTS: dict[AnnexPoint, Point] = {
    "1a": Point("Purpose, provider, version, and what the version changes"),
    "1b": Point("Hardware, software and other AI systems that it works with"),
    "1c": Point("Versions of the software that it needs", (_BOM,)),
    "1d": Point("Forms in which it is supplied: package, download, service"),
    "1e": Point("Hardware that it is meant to run on"),
    "1f": Point("Pictures and layout of the product that it is part of"),
    "1g": Point("User interface of those who deploy it"),
    "1h": Point("Instructions for those who deploy it"),
    "2a": Point(
        "Steps of development, and what was taken from others",
        ("plan", "tokenize", "train", "model_card"),
    ),
    "2b": Point("Design: logic, choices, assumptions about people, what it optimises, trade-offs"),
    "2c-architecture": Point("Architecture: how its parts work together"),
    "2c-compute": Point("Computing resources for development, training and tests", ("train",)),
    "2d-data": Point(
        "Data: scope, characteristics, selection, cleaning",
        ("data_card", "account", "validate", "deduplicate", "decontaminate", "audit_bias"),
    ),
    "2d-origin": Point("Data: how it was obtained and labelled"),
    "2e": Point("Human oversight that is needed, and what helps people to read its output"),
    "2f": Point("Changes that are foreseen, and how requirements are met after them"),
    "2g-tests": Point(
        "Validation and tests: data, metrics of accuracy and robustness, unequal effects",
        ("split", "evaluate", "retention", "robustness", "fairness", "memorisation"),
    ),
    "2g-reports": Point("Reports of the tests, dated and signed by those responsible"),
    "2h": Point("Cybersecurity"),
    "3-performance": Point(
        "What it can and cannot do, how accurate it is, and for whom", ("evaluate", "model_card")
    ),
    "3-risks": Point("Unintended outcomes that can be foreseen; risks to health, safety, rights"),
    "3-oversight": Point("Human oversight in use"),
    "3-input": Point("What its input must be like"),
    "4": Point("Why the metrics are the right ones for this system"),
    "5": Point("Risk management"),
    "6": Point("Changes made during its life"),
    "7": Point("Harmonised standards, or what was done instead"),
    "8": Point("Declaration of conformity"),
    "9": Point("Monitoring after it is on the market, with the plan"),
}
assert set(POINTS) == set(get_args(AnnexPoint))


@dataclass(frozen=True)
class Answer:
    """How a point stands; `artifacts` are names and SHA-256."""

    point: AnnexPoint
    asks: str
    state: State
    artifacts: tuple[tuple[str, str], ...]
    said: dict[str, Any]
    """`text` or `not_applicable`, `signer` and `signed`, where people spoke."""


def annex_iv_answers(record: RunRecord) -> list[Answer]:
    """All points in order. What people say goes before what the record shows."""
    said = record.config["card"].get("annex_iv", {})
    return [_answer(name, point, record, said.get(name, {})) for name, point in POINTS.items()]


def annex_iv_metrics(record: RunRecord) -> dict[str, float]:
    """Counts by state, and the share of points that are not missing, in [0, 1]."""
    states = [answer.state for answer in annex_iv_answers(record)]
    return {
        "annex_iv_coverage": 1 - states.count("MISSING") / len(states),
        **{
            f"num_annex_iv_{state.lower().replace(' ', '_')}": float(states.count(state))
            for state in get_args(State)
        },
    }


def render_annex_iv(record: RunRecord) -> str:
    """`annex_iv.md`: a table of all points, then each with its artifacts or its text."""
    return markdown_template("annex_iv.md.jinja").render(
        record=record, answers=annex_iv_answers(record), metrics=annex_iv_metrics(record)
    )


def _answer(name: AnnexPoint, point: Point, record: RunRecord, said: dict[str, Any]) -> Answer:
    artifacts = tuple(dict.fromkeys(a for s in point.stages for a in _artifacts(record, s)))
    state: State = "automatic" if artifacts else "MISSING"
    if said:
        state = "human text" if said["text"] else "not applicable"
    return Answer(name, point.asks, state, artifacts, said)


def _artifacts(record: RunRecord, stage: str) -> Iterator[tuple[str, str]]:
    """A stage's report as it is stored, and its files."""
    if stage == _BOM and record.provenance:
        yield "ml_bom.cdx.json", hashlib.sha256(render_ml_bom(record).encode()).hexdigest()
    elif report := record.report(stage):
        yield f"reports/{stage}.json", hashlib.sha256(report.to_json()).hexdigest()
        yield from ((f"{stage}: {name}", ref.sha256) for name, ref in report.files.items())
