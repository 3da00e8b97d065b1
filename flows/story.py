"""What `tunetrail trace` answers, for people."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from data_checks.intake.terms import subject_pseudonym
from sft_core.errors import ConfigError
from sft_core.keys import pseudonym_key
from sft_core.lineage.tracing import Story, dropped_rows, trace_row, trace_subject


def trace(args: argparse.Namespace) -> list[Story]:
    """The stories or ledger lines that the arguments ask for.

    Raises:
        ConfigError: the arguments ask for nothing, or nothing answers to them.
    """
    if args.dropped and args.kind:
        raise ConfigError("trace: ask for one thing, a row or a subject, or --dropped.")
    if not args.dropped and (args.reason or args.stage or args.run):
        raise ConfigError("trace: --reason, --stage and --run go with --dropped.")
    if args.dropped:
        return dropped_rows(args.run, args.reason, args.stage)
    if not args.kind or not args.key:
        raise ConfigError("trace: name a row (`trace row FILE:LINE`), or ask for --dropped.")
    if args.kind == "row":
        return [trace_row(args.key)]
    stories = trace_subject(subject_pseudonym(args.key, pseudonym_key()))
    if not stories:
        raise ConfigError(
            "trace: no row of that subject. Does ingest.sources.columns.subject name its column?"
        )
    return stories


def describe_dropped(lines: list[Story]) -> str:
    """A line a row: where it lies, its identity, and why it was dropped."""
    places = [f"{line['source']}:{line['line']}" for line in lines]
    width = max(map(len, places), default=0)
    return "\n".join(
        f"{place:<{width}}  {line['row_id'][:12]}  {line['stage']}: {_why(line)}"
        for place, line in zip(places, lines, strict=True)
    )


def describe_story(story: Story) -> str:
    """The row, then each run with the decisions of its stages and the models that came of it."""
    return "\n".join(_story_lines(story))


def _story_lines(story: Story) -> Iterator[str]:
    yield f"row      {story['row_id']}"
    yield f"source   {story['source']}:{story['line']}"
    yield f"terms    licence {story['licence']}, consent {story['consent']}"
    if story["subject"]:
        yield f"subject  {story['subject']} (pseudonym)"
    for run in story["runs"]:
        yield ""
        yield f"run {run['run_id']} ({run['flow']}, {run['outcome']}): {run['fate']}"
        for stage in run["stages"]:
            yield f"  {stage['stage']:<14} {stage['action']} {_why(stage)}".rstrip()
        for model in run["models"]:
            yield (
                f"  trained on by  {model['name']} version {model['version']} "
                f"(verdict {model['verdict']})"
            )


def _why(decision: Story) -> str:
    """Reason and evidence, and where the other row lies that the evidence names."""
    other = f"({decision['other']})" if "other" in decision else ""
    return " ".join(filter(None, (decision["reason"], decision["evidence"], other)))
