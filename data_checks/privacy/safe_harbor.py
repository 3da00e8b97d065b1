"""The 18 identifiers of HIPAA Safe Harbor beside what is looked for here, and how well.

The recalls come from a data file that `python -m benchmarks.identifiers --write` measures. They are
of that data set, of the built-in detectors, and prove nothing about other text.

Source: 45 CFR 164.514(b)(2)(i), letters (A) to (R).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from sft_core.config import PrivacyConfig
from sft_core.reports import Cell, Table

_ROWS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("A", "Names", ("name",), "name (after a title, a label or another cue)"),
    (
        *("B", "Geographic subdivisions smaller than a state", ("street", "postal_code")),
        "street, postal_code (no cities or counties)",
    ),
    ("C", "Dates finer than a year, ages over 89", ("date", "age"), ""),
    ("D", "Telephone numbers", ("phone",), ""),
    ("E", "Fax numbers", ("phone",), "phone (counted under D)"),
    ("F", "E-mail addresses", ("email",), ""),
    ("G", "Social security numbers", ("ssn",), ""),
    ("H", "Medical record numbers", ("record_number",), ""),
    ("I", "Health plan beneficiary numbers", ("health_plan",), ""),
    ("J", "Account numbers", ("account", "card", "iban"), ""),
    ("K", "Certificate and licence numbers", ("licence",), ""),
    ("L", "Vehicle identifiers and number plates", ("vehicle",), ""),
    ("M", "Device identifiers and serial numbers", ("device",), ""),
    ("N", "Web addresses (URLs)", ("url",), ""),
    ("O", "IP addresses", ("ip",), ""),
    ("P", "Biometric identifiers", (), ""),
    ("Q", "Full-face photographs and comparable images", (), ""),
    (
        *("R", "Any other unique identifying number, characteristic or code", ("national_id",)),
        "national_id (other numbers after a cue: under H)",
    ),
)


def safe_harbor_table(config: PrivacyConfig, found: Mapping[str, int]) -> Table:
    """One row an identifier: what looks for it, what the config does, recalls and n as measured.

    The first recall is on a file that was read while the rules were written, the second on made
    values that they had not seen.

    `found` holds the findings of a run by kind. An identifier that nothing looks for reads "not
    covered"; one that the data set has none of reads "not measured".
    """
    measured = measured_recall()
    rows: list[tuple[Cell, ...]] = []
    for letter, identifier, kinds, detector in _ROWS:
        name = f"({letter}) {identifier}"
        if not kinds:
            rows.append((name, "not covered", None, None, None, None, None))
            continue
        actions = dict.fromkeys(getattr(config, kind) for kind in kinds)
        action = ", ".join(f"{kind}: {getattr(config, kind)}" for kind in kinds)
        score, unseen = measured["recall"].get(letter), measured["held_out"].get(letter, {})
        told = [f"{s['hits'] / s['n']:.3f} {where}" for where, s in unseen.items()]
        rows.append(
            (
                name,
                detector or ", ".join(kinds),
                action if len(actions) > 1 else next(iter(actions)),
                round(score["hits"] / score["n"], 3) if score else "not measured",
                score["n"] if score else None,
                ", ".join(told) or "not measured",
                None if letter == "E" else sum(found.get(kind, 0) for kind in kinds),
            )
        )
    columns = (
        *("identifier", "detector", "action", "recall, file read while building", "n"),
        *("held-out recall", "found"),
    )
    return Table(columns=columns, rows=tuple(rows))


def measured_recall() -> dict[str, Any]:
    """The data file: data set, its digest, the rule, the date, and hits and n by letter."""
    path = resources.files("data_checks.privacy") / "measurements" / "identifier_recall.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
