"""Personal identifiers and secrets in records: found, and treated as the config says.

Detection is by format, check digit and cue word; there is no model of language in it, so that a
name or a place without a cue stays. Nothing here says that text is anonymous.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from data_checks import address_formats, credentials, date_formats, identifier_formats
from data_checks.scanning import Finding, Scanner
from sft_core.config import PrivacyConfig
from sft_core.records import Decision, Record

__all__ = ["KINDS", "Finding", "Protected", "find_identifiers", "protect", "redact"]

KINDS = tuple(PrivacyConfig.model_fields)
"""All kinds of identifiers, in the order of the config."""

Numbers = dict[tuple[str, str], int]
"""Number of each value of a kind within one record, in order of appearance."""

_PRECEDENCE = (
    *("secret", "email", "iban", "card", "ssn", "ip", "record_number", "phone"),
    *("street", "postal_code", "name", "date", "url", "age"),
)
"""Who wins where findings of different kinds overlap: the format that proves more."""
_SCANNER = Scanner(
    sorted(
        (
            *credentials.DETECTORS,
            *identifier_formats.DETECTORS,
            *address_formats.DETECTORS,
            *date_formats.DETECTORS,
        ),
        key=lambda detector: _PRECEDENCE.index(detector.kind),
    )
)


@dataclass(frozen=True, slots=True)
class Protected:
    """A record after the privacy stage.

    `record` has placeholders where the config says `redact`; when a decision drops the row, it is
    the record as it came, for quarantine. `counts` holds the findings by kind, kept ones included.
    `failing` names the kinds whose action is `fail`: their row is dropped as well, so that the
    caller can measure all rows and stop afterwards.
    """

    record: Record
    counts: dict[str, int]
    decision: Decision | None
    failing: tuple[str, ...]


def find_identifiers(text: str) -> list[Finding]:
    """Identifiers and secrets in order of position; overlaps go to the more specific format."""
    return _SCANNER.scan(text)


def redact(text: str, findings: Iterable[Finding], numbers: Numbers | None = None) -> str:
    """Replace each finding by its kind in capitals: `[EMAIL]`.

    With `numbers`, which one record shares among its texts, equal values (but for case and
    spacing) get equal numbers: `[NAME_1]`. Findings are in order and do not overlap.
    """
    pieces = []
    end = 0
    for finding in findings:
        label = finding.kind.upper()
        if numbers is not None:
            value = " ".join(text[finding.start : finding.end].casefold().split())
            taken = sum(kind == finding.kind for kind, _ in numbers)
            label += f"_{numbers.setdefault((finding.kind, value), taken + 1)}"
        pieces += [text[end : finding.start], f"[{label}]"]
        end = finding.end
    return "".join([*pieces, text[end:]])


def protect(record: Record, config: PrivacyConfig) -> Protected:
    """Apply the config's action for each kind to all messages and to the strings in `meta`.

    The key of a string in `meta` counts as the words before it: `{"mrn": "123456"}`. Evidence is
    kinds (for secrets, rules) with counts, such as `email=1 name=2`, and never text.
    """
    numbers: Numbers = {}
    counts: Counter[str] = Counter()
    rules: Counter[str] = Counter()

    def clean(text: str, cue: str = "") -> str:
        found = find_identifiers(cue + text)
        if not found:
            return text
        text = cue + text
        findings = [f for f in found if f.end > len(cue)]
        counts.update(f.kind for f in findings)
        rules.update(f.rule for f in findings if f.rule)
        # Again until nothing is left: a finding hides what it overlaps.
        while chosen := [f for f in findings if getattr(config, f.kind) == "redact"]:
            chosen = [replace(f, start=max(f.start, len(cue))) for f in chosen]
            text = redact(text, chosen, numbers)
            findings = [f for f in find_identifiers(text) if f.end > len(cue)]
            new = [f.kind for f in findings if getattr(config, f.kind) == "redact"]
            counts.update(new)
        return text[len(cue) :]

    messages = [{**m, "content": clean(m["content"])} for m in record.messages]
    meta = {key: _map_strings(value, clean, key) for key, value in record.meta.items()}
    if not counts:
        return Protected(record, {}, None, ())
    action = {kind: getattr(config, kind) for kind in counts}
    failing = tuple(kind for kind in KINDS if action.get(kind) == "fail")
    dropping = failing or tuple(kind for kind in KINDS if action.get(kind) == "drop")
    redacted = tuple(kind for kind in KINDS if action.get(kind) == "redact")
    decision = None
    if dropping:
        reason = "secret" if "secret" in dropping else "identifier_drop"
        decision = Decision(record.row, "dropped", reason, _evidence(dropping, counts, rules))
    elif redacted:
        decision = Decision(
            record.row, "redacted", "identifier", _evidence(redacted, counts, rules)
        )
        record = replace(record, messages=messages, meta=meta)
    return Protected(record, dict(counts), decision, failing)


def _evidence(kinds: Iterable[str], counts: Counter[str], rules: Counter[str]) -> str:
    """`name=2 email=1`; secrets are counted by rule."""
    shown = {kind: counts[kind] for kind in kinds if kind != "secret"}
    if "secret" in kinds:
        shown.update(rules)
    return " ".join(f"{kind}={count}" for kind, count in shown.items())


def _map_strings(value: Any, change: Callable[[str, str], str], key: str) -> Any:
    """The same value with every string in it changed, however deep it lies."""
    if isinstance(value, str):
        return change(value, f"{key.replace('_', ' ')}: ")
    if isinstance(value, dict):
        return {name: _map_strings(item, change, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_map_strings(item, change, key) for item in value]
    return value
