"""Find spans of text by many patterns at the price of one pass.

Every detector has a gate: a loose pattern that says whether a text could hold a finding. All gates
go into one RE2 set, a single automaton that reads a text once, in about 4 ns a character; the exact
pattern, which needs look-around and check digits, runs only where its gate opened. A gate may open
too often, never too seldom; a test compares findings with and without gates.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import re2  # type: ignore[import-untyped]

Span = tuple[int, int]

_GATE_BYTES = 64 << 20
"""Memory of the automaton; what does not fit is rebuilt on the way, which costs time only."""


@dataclass(frozen=True, slots=True)
class Finding:
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
    of the value, or None for a match that fails a check digit or a range.
    """

    kind: str
    gate: str
    pattern: re.Pattern[str]
    span: Callable[[re.Match[str]], Span | None] = value_span
    rule: str = ""

    def find(self, text: str) -> Iterator[Finding]:
        """All findings in one text, without asking the gate."""
        for match in self.pattern.finditer(text):
            if span := self.span(match):
                yield Finding(self.kind, *span, self.rule)


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
        opened = self._gates.Match(text.encode("utf-8", "surrogatepass"))
        return self._resolve(text, sorted(opened)) if opened else []

    def scan_ungated(self, text: str) -> list[Finding]:
        """The same by running every pattern, to check the gates."""
        return self._resolve(text, range(len(self._detectors)))

    def _resolve(self, text: str, opened: Sequence[int]) -> list[Finding]:
        groups: dict[tuple[str, str], list[Finding]] = {}
        for index in opened:
            detector = self._detectors[index]
            groups.setdefault((detector.kind, detector.rule), []).extend(detector.find(text))
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
    merged: list[Finding] = []
    for finding in sorted(findings, key=lambda f: f.start):
        if merged and finding.start < merged[-1].end:
            merged[-1] = replace(merged[-1], end=max(merged[-1].end, finding.end))
        else:
            merged.append(finding)
    return merged
