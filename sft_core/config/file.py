"""Reads a config from YAML or JSON, and explains what is wrong with it key by key."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sft_core.config import PipelineConfig
from sft_core.errors import ConfigError


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping that names a key twice: YAML would keep the last one in silence."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise ConfigError(f"line {key_node.start_mark.line + 1}: a key must be a name.")
        if key in seen:
            raise ConfigError(
                f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice. Keep one."
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load_config(path: Path) -> PipelineConfig:
    """Read a YAML (or JSON) file; what it leaves out keeps its default.

    Raises:
        ConfigError: the file is missing or not YAML, or a key or value is wrong. The message names
            the key, what was found, what is allowed and, for an unknown key, the nearest valid one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file. Write one with `tunetrail init {path}`."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}.") from error
    try:
        raw = yaml.load(text, _UniqueKeyLoader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{path}: {where}{problem}.") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if raw is not None and not isinstance(raw, dict):
        raise ConfigError(f"{path}: found a {type(raw).__name__}, expected a mapping of sections.")
    return parse_config(raw or {}, str(path))


def parse_config(raw: dict[str, Any], where: str) -> PipelineConfig:
    """Check a mapping against the schema.

    Raises:
        ConfigError: as `load_config`.
    """
    try:
        return PipelineConfig.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        lines = [f"  {_explain(problem)}" for problem in error.errors(include_url=False)]
        raise ConfigError(f"{where}: {len(lines)} problem(s)\n" + "\n".join(lines)) from None


def _explain(problem: Any) -> str:
    location, found = problem["loc"], problem["input"]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        valid = _fields_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else f" Allowed here: {', '.join(valid)}."
        return f"{key}: unknown key.{hint}"
    shown = "" if isinstance(found, dict | list) else f" (found {str(found)[:80]!r})"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key + ': ' if key else ''}{message}{shown}"


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the section at a location; list positions are passed over."""
    model: Any = PipelineConfig
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = next(iter(getattr(annotation, "__args__", ())), annotation)
    return list(model.model_fields)


def config_schema() -> dict[str, Any]:
    """JSON schema with the help lines, as `tunetrail schema` prints it."""
    return PipelineConfig.model_json_schema()
