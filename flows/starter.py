"""Writes a config that holds every field with its default and its help line."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from sft_core.config import PipelineConfig, Section

_HEADER = """\
# A TuneTrail run. Every field is here with its default, so delete what you do not change.
# Check it with `tunetrail audit THIS_FILE`, then `tunetrail run THIS_FILE`.
"""


def starter_config() -> str:
    """YAML text that loads as the defaults."""
    return _HEADER + "\n".join(_lines(PipelineConfig(), "")) + "\n"


def _lines(section: Section, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if not indent:
            yield ""
        width = 96 - len(indent)
        for line in textwrap.wrap(field.description or "", width):
            yield f"{indent}# {line}"
        if isinstance(value, Section):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            yield f"{indent}{name}:"
            for item in value:
                first, *rest = (f"{indent}    {line}" for line in _lines(item, " "))
                yield from _as_item([first, *rest], indent)
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _as_item(lines: list[str], indent: str) -> Iterator[str]:
    """A block of lines as one entry of a list: a dash before the first key."""
    stripped = [line[len(indent) + 5 :] for line in lines]
    first_key = next(i for i, line in enumerate(stripped) if not line.startswith("#"))
    for number, line in enumerate(stripped):
        lead = "  - " if number == first_key else "    "
        yield f"{indent}{lead}{line}"


def _scalar(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)
