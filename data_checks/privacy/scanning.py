"""Find spans of text by many patterns at the price of one pass.

Every detector has a gate: a loose pattern that says where a text could hold a finding. All gates go
into one RE2 set, a single automaton that reads all texts of a record at once, in 2 to 5 ns a
character. The exact pattern, which needs look-around and check digits, runs only for the gates that
opened, and only near the places where they did. A gate may open too often, never too seldom; tests
compare with what the patterns find without gates.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import re2  # type: ignore[import-untyped]

Span = tuple[int, int]

_GATE_BYTES = 64 << 20
"""Memory of the automaton; what does not fit is rebuilt on the way, which costs time only."""
_CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes that start no character in UTF-8."""


class Finding(NamedTuple):
    """A span of text that identifies somebody or opens something; never the text itself.

    `kind` is a field of `PrivacyConfig`; `rule` says which format a secret has.
    """

    kind: str
    start: int
    end: int
    rule: str = ""


def value_span(match: re.Match[str]) -> Span | None:
    """The group `v`, or the whole match where the pattern has no such group."""
    return match.span("v") if "v" in match.re.groupindex else match.span()


@dataclass(frozen=True, slots=True)
class Detector:
    """One format of one kind.

    `gate` is RE2 syntax, whose word boundaries and classes know ASCII alone. `span` gives the place
    of the value, or None for a match that fails a check digit or a range. `reach` is how many
    characters before and after the gate's match the pattern may need; None is the whole text.
    """

    kind: str
    gate: str
    pattern: re.Pattern[str]
    span: Callable[[re.Match[str]], Span | None] = value_span
    rule: str = ""
    reach: int | None = 50
    _places: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", re2.compile(self.gate))

    def find(self, text: str, start: int = 0, end: int = sys.maxsize) -> list[Finding]:
        """All findings in one text or in a part of it, without asking the gate."""
        return [
            Finding(self.kind, *span, self.rule)
            for match in self.pattern.finditer(text, start, end)
            if (span := self.span(match))
        ]

    def find_near_gate(self, text: str, raw: bytes) -> list[Finding]:
        """The same by looking only where the gate opens; `raw` is the text in UTF-8."""
        if self.reach is None or len(text) <= self.reach:
            return self.find(text)
        windows: list[Span] = []
        for place in self._places.finditer(raw):
            first, last = place.span()
            if len(raw) != len(text):
                first, last = (len(raw[:at].translate(None, _CONTINUATION)) for at in (first, last))
            start = max(0, first - self.reach)
            if windows and start <= windows[-1][1]:
                start, _ = windows.pop()
            windows.append((start, last + self.reach))
        return [finding for window in windows for finding in self.find(text, *window)]


class Scanner:
    """Detectors behind one gate automaton; the order of the detectors is their precedence."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = tuple(detectors)
        options = re2.Options()
        options.max_mem = _GATE_BYTES
        options.log_errors = False
        self._gates = re2.Set.SearchSet(options)
        for detector in self._detectors:
            self._gates.Add(detector.gate)
        self._gates.Compile()

    def scan(self, text: str) -> list[Finding]:
        """Findings in order of position. Overlapping ones of one kind become one; else the kind
        whose detector comes first wins.
        """
        return self.scan_all([text])[0]

    def scan_all(self, texts: Sequence[str]) -> list[list[Finding]]:
        """`scan` of each text, at the price of one pass of the automaton for all of them."""
        raws = [text.encode("utf-8", "surrogatepass") for text in texts]
        opened = self._gates.Match(b"\n".join(raws))
        if not opened:
            return [[] for _ in texts]
        detectors = [self._detectors[index] for index in sorted(opened)]
        return [
            resolve(found for detector in detectors for found in detector.find_near_gate(text, raw))
            for text, raw in zip(texts, raws, strict=True)
        ]

    def scan_ungated(self, text: str) -> list[Finding]:
        """The same by running every pattern on the whole text, to check the gates."""
        return resolve(found for detector in self._detectors for found in detector.find(text))


def resolve(candidates: Iterable[Finding]) -> list[Finding]:
    """Findings in order of position, none overlapping; `candidates` come in order of precedence.

    Overlapping ones of the same kind and rule are merged first.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in candidates:
        groups.setdefault((finding.kind, finding.rule), []).append(finding)
    if len(groups) == 1:
        return _merged(*groups.values())
    spans: list[Span] = []
    findings = []
    for group in groups.values():
        for finding in _merged(group):
            span = (finding.start, finding.end)
            at = bisect_left(spans, span)
            free_before = at == 0 or spans[at - 1][1] <= finding.start
            free_after = at == len(spans) or finding.end <= spans[at][0]
            if free_before and free_after:
                insort(spans, span)
                findings.append(finding)
    return sorted(findings, key=lambda f: f.start)


def _merged(findings: list[Finding]) -> list[Finding]:
    """Findings of one kind; those that overlap become one."""
    if len(findings) == 1:
        return findings
    merged: list[Finding] = []
    for finding in sorted(findings, key=lambda f: f.start):
        if merged and finding.start < merged[-1].end:
            merged[-1] = merged[-1]._replace(end=max(merged[-1].end, finding.end))
        else:
            merged.append(finding)
    return merged
