"""Personal identifiers and secrets in records: found, and treated as the config says.

Detection is by format, check digit and cue word; there is no model of language in it, so that a
name or a place without a cue stays, unless the config names a recogniser. Nothing here says that
text is anonymous.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

from data_checks.privacy import (
    address_formats,
    credentials,
    date_formats,
    identifier_formats,
    numbered_formats,
)
from data_checks.privacy.name_models import recognise
from data_checks.privacy.redaction import Replacements, substitute
from data_checks.privacy.scanning import Finding, Scanner, resolve
from sft_core.config import PrivacyConfig
from sft_core.records import Decision, Record

__all__ = ["KINDS", "Finding", "Protected", "find_identifiers", "protect"]

KINDS = tuple(name for name in PrivacyConfig.model_fields if name != "ner")
"""All kinds of identifiers, in the order of the config."""

_PRECEDENCE = (
    *("secret", "email", "iban", "card", "ssn", "national_id", "ip", "licence", "health_plan"),
    *("vehicle", "device", "account", "record_number", "phone", "street", "postal_code", "name"),
    *("date", "url", "age"),
)
"""Who wins where findings of different kinds overlap: the format that proves more."""
_SCANNER = Scanner(
    sorted(
        (
            *credentials.DETECTORS,
            *identifier_formats.DETECTORS,
            *numbered_formats.DETECTORS,
            *address_formats.DETECTORS,
            *date_formats.DETECTORS,
        ),
        key=lambda detector: _PRECEDENCE.index(detector.kind),
    )
)


class Protected(NamedTuple):
    """A record after the privacy stage.

    `record` has other text where the config says so; when a decision drops the row, it is the
    record as it came, for quarantine. `counts` holds the findings by kind, kept ones included.
    `failing` names the kinds whose action is `fail`: their row is dropped as well, so that the
    caller can measure all rows and stop afterwards.
    """

    record: Record
    counts: dict[str, int]
    decision: Decision | None
    failing: tuple[str, ...]


@dataclass(slots=True)
class _Text:
    """One string of a record: a message, or a string in `meta` behind its key as a cue."""

    place: str
    cue: str
    text: str


def find_identifiers(text: str) -> list[Finding]:
    """Identifiers and secrets in order of position; overlaps go to the more specific format."""
    return _SCANNER.scan(text)


def protect(record: Record, config: PrivacyConfig, key: bytes | None = None) -> Protected:
    """Apply the config's action for each kind to all messages and to the strings in `meta`.

    The key of a string in `meta` counts as the words before it: `{"mrn": "123456"}`. `key` is the
    secret of pseudonyms and date shifts; who has it can test a guess against a pseudonym.

    Evidence is `kind@turn:start-end` for each finding that the action is about, with the index of
    the message (or `meta`) and offsets in characters of the text as it came; for secrets the rule
    stands for the kind. What came to light only when other text was gone has no place in the text
    as it came, and reads `kind@turn`.

    Raises:
        ConfigError: an action needs the key and there is none, or the recogniser is unusable.
    """
    contents = [message["content"] for message in record.messages]
    meta = list(_meta_texts(record.meta, "")) if record.meta else []
    found = _SCANNER.scan_all(contents + [text.cue + text.text for text in meta])
    if meta:
        found[len(contents) :] = map(_after_cue, meta, found[len(contents) :])
    if config.ner is not None:
        named = recognise(config.ner, contents + [text.text for text in meta], KINDS)
        found = [resolve(chain(*both)) for both in zip(found, named, strict=True)]
    if not any(found):
        return Protected(record, {}, None, ())
    counts = Counter(finding.kind for finding in chain.from_iterable(found))
    actions = {kind: getattr(config, kind) for kind in counts}
    treated = tuple(kind for kind, action in actions.items() if action != "keep")
    if not treated:
        return Protected(record, dict(counts), None, ())
    texts = [_Text(str(i), "", content) for i, content in enumerate(contents)] + meta
    failing = tuple(kind for kind in KINDS if actions.get(kind) == "fail")
    dropping = failing or tuple(kind for kind in KINDS if actions.get(kind) == "drop")
    if dropping:
        reason = "secret" if "secret" in dropping else "identifier_drop"
        decision = Decision(record.row, "dropped", reason, _evidence(texts, found, dropping))
        return Protected(record, dict(counts), decision, failing)
    evidence = [_evidence(texts, found, treated)]
    replacements = Replacements(config, record.row_id, key)
    for text, findings in zip(texts, found, strict=True):
        if findings:
            for kind in _treat(text, findings, replacements):
                counts[kind] += 1
                evidence.append(f"{kind}@{text.place}")
    new = iter(texts)
    changed = replace(
        record,
        messages=[{**m, "content": next(new).text} for m in record.messages],
        meta=_with_texts(record.meta, new),
    )
    decision = Decision(record.row, "redacted", "identifier", " ".join(evidence))
    return Protected(changed, dict(counts), decision, ())


def _after_cue(text: _Text, findings: list[Finding]) -> list[Finding]:
    """The findings as they lie in the text without its cue."""
    cue = len(text.cue)
    return [
        f._replace(start=max(0, f.start - cue), end=f.end - cue) for f in findings if f.end > cue
    ]


def _treat(text: _Text, findings: list[Finding], replacements: Replacements) -> list[str]:
    """Replace what has to go, again until nothing is left, for a finding hides what it overlaps.

    Returns the kinds of what came to light on the way. Dates move last: their shape stays, so that
    they make no new finding.
    """

    def chosen(changes: Any) -> list[Finding]:
        return [f for f in findings if changes(f.kind, text.text[f.start : f.end])]

    uncovered: list[str] = []
    first = True
    while gone := chosen(replacements.changes):
        uncovered += [] if first else [f.kind for f in gone]
        first = False
        text.text = substitute(text.text, gone, replacements.replacement)
        findings = _SCANNER.scan(text.cue + text.text)
        if text.cue:
            findings = _after_cue(text, findings)
    moving = chosen(replacements.shifts)
    text.text = substitute(text.text, moving, replacements.shifted)
    return uncovered


def _evidence(texts: list[_Text], found: list[list[Finding]], kinds: tuple[str, ...]) -> str:
    """`name@0:3-8 email@1:10-25`."""
    return " ".join(
        f"{finding.rule or finding.kind}@{text.place}:{finding.start}-{finding.end}"
        for text, findings in zip(texts, found, strict=True)
        for finding in findings
        if finding.kind in kinds
    )


def _meta_texts(value: Any, key: str) -> Iterator[_Text]:
    """Every string in `meta`, however deep it lies."""
    if isinstance(value, str):
        yield _Text("meta", f"{key.replace('_', ' ')}: ", value)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _meta_texts(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _meta_texts(item, key)


def _with_texts(value: Any, texts: Iterator[_Text]) -> Any:
    """The same value with its strings taken from `texts`, in the order of `_meta_texts`."""
    if isinstance(value, str):
        return next(texts).text
    if isinstance(value, dict):
        return {name: _with_texts(item, texts) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_texts(item, texts) for item in value]
    return value
