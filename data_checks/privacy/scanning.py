"""Find spans of text by many patterns at the price of one pass.

Every detector has a gate: a loose pattern that says whether a text could hold a finding. All gates
go into one RE2 set, a single automaton that reads all texts of a record at once, in 7 to 10 ns a
character. Where a gate opened, a second RE2 pattern of the detector names the places at which a
finding can start, and only there the exact pattern is tried, which needs look-around and check
digits and is slow at passing over text. Both may open too often, never too seldom; tests compare
with what the exact patterns find in the whole text.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import re2  # type: ignore[import-untyped]

Span = tuple[int, int]

_GATE_BYTES = 64 << 20
"""Memory of the automaton; what does not fit is rebuilt on the way, which costs time only."""
_CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes that start no character in UTF-8."""
_ANYWHERE = re2._re2.RE2.Anchor.UNANCHORED


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

    `gate` and `starts` are RE2 syntax, whose word boundaries and classes know ASCII alone. Wherever
    `pattern` matches, `starts` must match from the same character on; empty is the gate itself,
    None looks for `pattern` in the whole text. `span` gives the place of the value, or None for a
    match that fails a check digit or a range.
    """

    kind: str
    gate: str
    pattern: re.Pattern[str]
    span: Callable[[re.Match[str]], Span | None] = value_span
    rule: str = ""
    starts: str | None = ""
    _starts: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.starts is not None:
            # The C++ method behind `search`: the Python around it costs more than the search.
            search = re2.compile(self.starts or self.gate)._regexp.Match
            object.__setattr__(self, "_starts", search)

    def find(self, text: str) -> list[Finding]:
        """All findings in one text, without asking the gate."""
        return [
            Finding(self.kind, *span, self.rule)
            for match in self.pattern.finditer(text)
            if (span := self.span(match))
        ]

    def find_at_starts(self, joined: _Joined) -> Iterator[tuple[int, Finding]]:
        """The same in each text, with its index, by trying only where a finding can start."""
        if self._starts is None:
            for index, text in enumerate(joined.texts):
                for finding in self.find(text):
                    yield index, finding
            return
        raw = joined.raw
        at, _ = self._starts(_ANYWHERE, raw, 0, len(raw))[0]
        while at >= 0:
            index, place = joined.place(at)
            match = self.pattern.match(joined.texts[index], place)
            if match is None:
                at += 1
            else:
                at += len(match[0].encode("utf-8", "surrogatepass"))
                if span := self.span(match):
                    yield index, Finding(self.kind, *span, self.rule)
            at, _ = self._starts(_ANYWHERE, raw, at, len(raw))[0]


class _Joined:
    """Texts as one in UTF-8, with a line break between them."""

    def __init__(self, texts: Sequence[str], raw: bytes) -> None:
        self.texts = texts
        self.raw = raw
        self._first = list(accumulate((len(text) + 1 for text in texts), initial=0))
        self._ascii = len(raw) == self._first[-1] - 1
        self._last = (0, 0)

    def place(self, at: int) -> tuple[int, int]:
        """The index of the text and the character in it that a byte of the whole is."""
        if not self._ascii:
            # Counts on from the place asked for before, so that many places take linear time.
            first, num_chars = self._last if self._last[0] <= at else (0, 0)
            num_chars += len(self.raw[first:at].translate(None, _CONTINUATION))
            self._last = (at, num_chars)
            at = num_chars
        index = bisect_right(self._first, at) - 1
        return index, at - self._first[index]


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
        raw = "\n".join(texts).encode("utf-8", "surrogatepass")
        opened = self._gates.Match(raw)
        found: list[list[Finding]] = [[] for _ in texts]
        if opened:
            joined = _Joined(texts, raw)
            for number in sorted(opened):
                for index, finding in self._detectors[number].find_at_starts(joined):
                    found[index].append(finding)
            found = [resolve(findings) for findings in found]
        return found

    def scan_ungated(self, text: str) -> list[Finding]:
        """The same by running every pattern on the whole text, to check the gates."""
        return resolve(found for detector in self._detectors for found in detector.find(text))


def resolve(candidates: Iterable[Finding]) -> list[Finding]:
    """Findings in order of position, none overlapping; `candidates` come in order of precedence.

    Overlapping ones of the same kind and rule are merged first.
    """
    candidates = list(candidates)
    if len(candidates) < 2:
        return candidates
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
